//! The machine: the disk, its power, and how honest the disk is.
//!
//! A cut happens between two steps of the disk, a step being anything that changes or syncs something. At that moment
//! every request to the disk stops being answered, so that nothing can be acknowledged that rests on a later one; then
//! the processes are killed, and only then do their requests end, with an error that nobody sees any more.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::image::{Body, Image, Inode};

/// A sync that is answered and not done: as if the service did not make the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lie {
    /// The disk is honest.
    None,
    /// Of files whose name ends like this. All of them: a library that syncs the same file now and then in its own thread
    /// would make good what was left out, when that thread is quicker than the cut.
    FileSync(&'static str),
    /// `fsync` of folders with this name.
    FolderSync(&'static str),
}

impl Lie {
    fn covers(self, image: &Image, inode: Inode) -> bool {
        let Ok(node) = image.node(inode) else { return false };
        match (self, &node.body) {
            (Self::FileSync(suffix), Body::File(_)) => node.name.as_encoded_bytes().ends_with(suffix.as_bytes()),
            (Self::FolderSync(name), Body::Folder(_)) => node.name == name,
            (Self::None | Self::FileSync(_) | Self::FolderSync(_), _) => false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Power {
    On,
    /// Gone, while processes still run that must not notice.
    Failing,
    Off,
}

/// What the lock guards.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) image: Image,
    pub(crate) lie: Lie,
    power: Power,
    /// Steps done so far.
    steps: usize,
    /// The cut comes in place of the step after this one.
    last_step: Option<usize>,
}

impl State {
    /// A sync as the disk does it.
    pub(crate) fn sync(&mut self, inode: Inode) -> Result<(), crate::image::Refusal> {
        if self.lie.covers(&self.image, inode) { Ok(()) } else { self.image.sync(inode) }
    }
}

/// The machine.
#[derive(Debug)]
pub(crate) struct Machine {
    state: Mutex<State>,
    changed: Condvar,
}

impl Machine {
    pub(crate) fn new(image: Image) -> Self {
        let state = State { image, lie: Lie::None, power: Power::On, steps: 0, last_step: None };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk, for a request that changes nothing; `None` when the power has gone.
    pub(crate) fn look(&self) -> Option<MutexGuard<'_, State>> {
        let state = self.lock();
        let state = self.changed.wait_while(state, |state| state.power == Power::Failing);
        Some(state.unwrap_or_else(PoisonError::into_inner)).filter(|state| state.power == Power::On)
    }

    /// The disk, for a step; `None` when the power has gone, perhaps because this step was to be the one.
    pub(crate) fn step(&self) -> Option<MutexGuard<'_, State>> {
        {
            let mut state = self.lock();
            if state.power == Power::On {
                if state.last_step.is_none_or(|last| state.steps < last) {
                    state.steps += 1;
                    return Some(state);
                }
                state.power = Power::Failing;
                self.changed.notify_all();
            }
        }
        self.look()
    }

    /// Steps done so far.
    pub(crate) fn steps(&self) -> usize {
        self.lock().steps
    }

    /// The power goes after so many steps more.
    pub(crate) fn cut_after(&self, steps: usize) {
        let mut state = self.lock();
        state.last_step = Some(state.steps.saturating_add(steps));
    }

    /// The power stays.
    pub(crate) fn no_cut(&self) {
        self.lock().last_step = None;
    }

    /// Whether the power has gone.
    pub(crate) fn failing(&self) -> bool {
        self.lock().power != Power::On
    }

    /// Waits until the power goes; it goes now if that takes too long. Returns whether it did by itself.
    pub(crate) fn wait_until_failing(&self, within: Duration) -> bool {
        let on = |state: &mut State| state.power == Power::On;
        let (mut state, late) =
            self.changed.wait_timeout_while(self.lock(), within, on).unwrap_or_else(PoisonError::into_inner);
        if late.timed_out() {
            state.power = Power::Failing;
        }
        !late.timed_out()
    }

    /// The power goes now.
    pub(crate) fn fail_now(&self) {
        self.wait_until_failing(Duration::ZERO);
    }

    /// Ends the requests of processes that have been killed.
    pub(crate) fn off(&self) {
        self.lock().power = Power::Off;
        self.changed.notify_all();
    }

    /// Starts anew.
    pub(crate) fn on(&self) {
        let mut state = self.lock();
        state.power = Power::On;
        state.last_step = None;
    }
}
