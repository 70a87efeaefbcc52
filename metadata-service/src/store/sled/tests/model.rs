//! Random histories, on this engine and on the memory engine: every answer must be the same.
//!
//! Besides plain commits and reads a history has groups, whose commits are decided before any of them is durable,
//! checkpoints that begin after every group or after none and that last for some steps, reopenings, and processes that
//! were killed. Keys are few and short, so that writes, ranges and scans meet often.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::store::engine::{Batch, Decision, EngineExt as _, View};
use crate::store::memory::MemoryEngine;

/// What a commit does. Its answer is all that it saw.
#[derive(Debug, Clone)]
struct Command {
    looks_at: Vec<u8>,
    scans: KeyRange,
    limit: usize,
    writes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    refuses: bool,
}

type Seen = (u64, Option<Bytes>, Vec<Row>);

impl Command {
    fn decide(self, view: &dyn View) -> Result<(Decision, Seen), EngineError> {
        let seen = (view.sequence(), view.get(&self.looks_at)?, view.scan(&self.scans, self.limit)?);
        if self.refuses {
            return Err(EngineError::BatchTooLarge("as the history says"));
        }
        let mut batch = Batch::default();
        for (key, value) in self.writes {
            match value {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            }
        }
        // Something that depends on what was seen.
        batch.put(b"seen".to_vec(), format!("{:?}", seen.2).into_bytes().into_iter().take(1000).collect());
        Ok((Decision::adds(batch), seen))
    }
}

#[derive(Debug, Clone)]
enum Step {
    Commit(Command),
    Group(Vec<Command>),
    Get(Vec<u8>),
    Scan(KeyRange, usize),
    /// From now on checkpoints do not end, or do again.
    HoldCheckpoints(bool),
    Reopen,
    /// The files go on without what the process still meant to do.
    Killed,
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![Just(0), Just(b'a'), Just(b'b'), Just(0xff)], 1..4)
}

fn range() -> impl Strategy<Value = KeyRange> {
    let ends = (vec(prop_oneof![Just(0), Just(b'a'), Just(0xff)], 0..3), proptest::option::of(key()));
    prop_oneof![
        ends.prop_map(|(start, end)| KeyRange { start, end }),
        key().prop_map(|key| KeyRange::prefix(&key)),
        (key(), key()).prop_map(|(prefix, after)| KeyRange::prefix(&prefix).after(&after)),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    let writes = vec((key(), proptest::option::of(vec(any::<u8>(), 0..4))), 0..6);
    let fields = (key(), range(), 0..8_usize, writes, prop::bool::weighted(0.1));
    fields.prop_map(|(looks_at, scans, limit, writes, refuses)| Command { looks_at, scans, limit, writes, refuses })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => command().prop_map(Step::Commit),
        4 => vec(command(), 1..8).prop_map(Step::Group),
        2 => key().prop_map(Step::Get),
        2 => (range(), 0..12_usize).prop_map(|(range, limit)| Step::Scan(range, limit)),
        1 => any::<bool>().prop_map(Step::HoldCheckpoints),
        1 => Just(Step::Reopen),
        1 => Just(Step::Killed),
    ]
}

/// An error as text, since that is what can be compared.
fn comparable<T>(result: Result<T, EngineError>) -> Result<T, String> {
    result.map_err(|error| error.to_string())
}

impl Fixture {
    fn reopen(&mut self, options: &SledOptions) {
        self.checkpoints_held = false;
        let seams = Seams { database: self.database.wrap(), ..self.log.seams() };
        self.engine = Arc::new(SledEngine::open_with(self.folder.path(), options, seams).unwrap());
    }
}

fn run(engine: &Arc<SledEngine>, command: Command) -> Started<Seen> {
    let engine = Arc::clone(engine);
    Box::pin(async move { engine.decide(move |view| command.decide(view)).await })
}

async fn run_model(model: &MemoryEngine, command: Command) -> Result<Seen, String> {
    comparable(model.decide(move |view| command.decide(view)).await)
}

/// Decides all commands in one group, behind a commit whose sync is held until they have queued up.
async fn run_group(fixture: &Fixture, commands: Vec<Command>) -> Vec<Result<Seen, String>> {
    let stalled = fixture.stall(puts(&[(b"lead", b"")])).await;
    let mut queued = Vec::new();
    for command in commands {
        queued.push(start(run(&fixture.engine, command)).await);
    }
    fixture.log.release();
    stalled.await.unwrap();
    let mut seen = Vec::new();
    for commit in queued {
        seen.push(comparable(commit.await));
    }
    seen
}

async fn check(
    step: Step,
    fixture: &mut Fixture,
    model: &MemoryEngine,
    options: &SledOptions,
) -> Result<(), TestCaseError> {
    match step {
        Step::Commit(command) => {
            let seen = comparable(run(&fixture.engine, command.clone()).await);
            prop_assert_eq!(seen, run_model(model, command).await);
        }
        Step::Group(commands) => {
            let seen = run_group(fixture, commands.clone()).await;
            commit(model, puts(&[(b"lead", b"")])).await.unwrap();
            for (seen, command) in seen.into_iter().zip(commands) {
                prop_assert_eq!(seen, run_model(model, command).await);
            }
        }
        Step::Get(key) => prop_assert_eq!(fixture.engine.get(&key).await.unwrap(), model.get(&key).await.unwrap()),
        Step::Scan(range, limit) => {
            let rows = fixture.engine.scan(&range, limit).await.unwrap();
            prop_assert_eq!(rows, model.scan(&range, limit).await.unwrap());
        }
        Step::HoldCheckpoints(held) => {
            fixture.checkpoints_held = held;
            if held { fixture.database.hold() } else { fixture.database.release() }
        }
        Step::Reopen => {
            fixture.database.release();
            fixture.engine.close().await;
            fixture.reopen(options);
        }
        Step::Killed => {
            // Where checkpoints do not end, this one has written what it can.
            let shared = &fixture.engine.shared;
            wait_until("a checkpoint ends", || fixture.checkpoints_held || !shared.is_frozen());
            let copy = copy_of(fixture.folder.path());
            let killed = std::mem::replace(&mut fixture.folder, copy);
            fixture.database.release();
            fixture.engine.close().await;
            drop(killed);
            fixture.reopen(options);
        }
    }
    prop_assert_eq!(fixture.engine.sequence(), model.sequence());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn a_random_history_has_the_answers_of_the_model(steps in vec(step(), 1..40), hasty in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            // Commits never wait for a checkpoint that is held.
            let options = SledOptions { checkpoint_bytes: if hasty { 1 } else { u64::MAX }, ..SledOptions::default() };
            let (mut fixture, model) = (Fixture::with(options.clone()), MemoryEngine::new());
            for step in steps {
                check(step, &mut fixture, &model, &options).await?;
            }
            fixture.database.release();
            let everything = KeyRange { start: Vec::new(), end: None };
            prop_assert_eq!(
                fixture.engine.scan(&everything, usize::MAX).await.unwrap(),
                model.scan(&everything, usize::MAX).await.unwrap()
            );
            fixture.engine.close().await;
            Ok(())
        })?;
    }
}
