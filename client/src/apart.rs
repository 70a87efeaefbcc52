//! Work that blocks, apart from the runtime's own threads.

use std::future::Future;
use std::io;
use std::path::PathBuf;

use tokio::sync::oneshot;

use crate::error::Error;

/// Where blocking work runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// On the runtime's pool: for files, which answer in bounded time.
    Pool,
    /// On a thread of its own, which nobody waits for when the program ends: for what may block for ever, such as
    /// standard input.
    Thread,
}

/// Starts the work at once; the future yields what it returns. Dropping the future does not end the work.
pub(crate) fn run<T: Send + 'static>(
    place: Place,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> impl Future<Output = Result<T, Error>> + Send + 'static {
    let (done, result) = oneshot::channel();
    let work = move || {
        // An error here only says that nobody waits any more.
        drop(done.send(work()));
    };
    let started = match place {
        Place::Pool => {
            drop(tokio::task::spawn_blocking(work));
            Ok(())
        }
        Place::Thread => std::thread::Builder::new().name("mini-tectonic-io".to_owned()).spawn(work).map(drop),
    };
    async move {
        started.map_err(failed)?;
        result.await.unwrap_or_else(|_gone| Err(ended_early()))
    }
}

fn failed(source: io::Error) -> Error {
    Error::Local { action: "run", path: PathBuf::from("a thread for input and output"), source }
}

/// The error for a task that did not come to its end: it panicked, or the runtime is shutting down.
pub(crate) fn ended_early() -> Error {
    failed(io::Error::other("it ended early"))
}
