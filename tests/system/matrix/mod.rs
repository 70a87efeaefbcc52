//! The isolation matrix (I9, I10): every method x whose object is named x who asks, over real services and sockets.
//!
//! What each cell must answer is derived from rules (`spec`) and from what each method is about (`methods`, `chunks`), never
//! from what was answered before: code, message and details are compared byte for byte, so that their sizes are too. Beyond
//! that, whatever another tenant has gives the same bytes as what never existed, ids of equal length aside.
//!
//! A method that is served and has no row here fails the suite. Refusals are tried first, all of them, and must change
//! nothing; then what is permitted is done.
//!
//! Plain `cargo test` asks about one object of each kind where the credential alone decides. All cells, with figures on the
//! last line:
//!
//! ```text
//! MINI_TECTONIC_MATRIX=full cargo test -p mini-tectonic-proto --test system matrix -- --nocapture
//! ```

mod capabilities;
mod chunks;
mod forgeries;
mod methods;
mod site;
mod spec;
mod targets;
mod tokens;
mod wire;

use std::collections::BTreeSet;

use self::site::Site;
use self::spec::{Expected, Target};
use self::wire::Outcome;

/// One call and what must come of it.
struct Cell {
    path: &'static str,
    credential: String,
    target: Target,
    /// Which field the target is about.
    field: &'static str,
    authorization: Vec<String>,
    message: Vec<u8>,
    expected: Expected,
}

impl Cell {
    fn name(&self) -> String {
        let Self { path, credential, target, field, .. } = self;
        format!("{path} with {credential}, {field} is {target:?}")
    }
}

#[derive(Default)]
struct Figures {
    cells: usize,
    refused: usize,
    permitted: usize,
    bytes: usize,
    /// Answers about what another tenant has, held against those about what never existed.
    alike: usize,
}

impl Figures {
    fn count(&mut self, outcome: &Outcome) {
        self.cells += 1;
        self.bytes += outcome.size();
        if outcome.answer.is_ok() {
            self.permitted += 1;
        } else {
            self.refused += 1;
        }
    }
}

/// Tries all cells; returns what is not as specified. Each credential has a connection of its own at each method: one on
/// which very many calls in a row are refused before their bodies were read is closed, as a flood of resets would be.
async fn run(site: &Site, cells: &[Cell], figures: &mut Figures) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut never: Option<(String, Outcome)> = None;
    let mut connection = (String::new(), None);
    for cell in cells {
        let caller = format!("{} {}", cell.path, cell.credential);
        if connection.0 != caller {
            connection = (caller, Some(site.connect(cell.path).await));
        }
        let channel = connection.1.clone().expect("just connected");
        let outcome = wire::call(channel, cell.path, &cell.authorization, &cell.message).await;
        if let Err(problem) = cell.expected.check(&outcome) {
            wrong.push(format!("{}: {problem}", cell.name()));
        }
        figures.count(&outcome);
        let same = format!("{} {} {}", cell.path, cell.credential, cell.field);
        match &cell.target {
            Target::Never(id) => never = Some((same, outcome.without(id))),
            Target::Foreign(id) => {
                let (about, never) = never.as_ref().expect("what never existed is asked for first");
                assert_eq!(about, &same, "{}", cell.name());
                if outcome.without(id) != *never {
                    wrong.push(format!("{}: {outcome:?} is not {never:?}", cell.name()));
                }
                figures.alike += 1;
            }
            Target::Own | Target::Gone(_) | Target::Malformed(_) => {}
        }
    }
    wrong
}

#[expect(clippy::print_stdout, reason = "the suite's figures")]
fn tell(figures: &Figures, paths: usize) {
    let Figures { cells, refused, permitted, bytes, alike } = figures;
    println!(
        "isolation matrix: {paths} methods, {cells} cells, 100 % as specified ({refused} refused, {permitted} permitted); \
         {alike} answers about a foreign object are those about one that never existed; {bytes} bytes compared"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_answers_every_caller_about_every_object_as_specified() {
    let site = Site::new().await;
    let full = std::env::var_os("MINI_TECTONIC_MATRIX").is_some();
    let cells: Vec<_> = methods::cells(&site, full).into_iter().chain(chunks::cells(&site)).collect();
    let paths: BTreeSet<&str> = cells.iter().map(|cell| cell.path).collect();
    assert_eq!(paths, proto::METHOD_PATHS.iter().copied().collect(), "every method has rows");

    let mut figures = Figures::default();
    let before = site.everything().await;
    let (refused, permitted): (Vec<_>, Vec<_>) = cells.into_iter().partition(|cell| cell.expected.is_refusal());
    let mut wrong = run(&site, &refused, &mut figures).await;
    let changed: Vec<_> = site.everything().await.into_iter().filter(|line| !before.contains(line)).collect();
    wrong.extend(changed.into_iter().map(|line| format!("refusals changed something: {line}")));
    wrong.extend(run(&site, &permitted, &mut figures).await);
    let first: Vec<_> = wrong.iter().take(10).map(String::as_str).collect();
    assert!(wrong.is_empty(), "{} of {} cells are wrong:\n{}", wrong.len(), figures.cells, first.join("\n"));
    tell(&figures, paths.len());
    assert!(figures.cells > 8_000 && figures.permitted > 100 && figures.alike > 1_000, "the matrix has its cells");
    Box::pin(site.finish()).await;
}
