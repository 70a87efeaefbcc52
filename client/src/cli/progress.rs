//! The progress bar: on standard error, on a terminal only, and never with `-q` or `--json`.

use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use mini_tectonic_client::{Progress, Transferred};

use super::context::Context;
use super::output::escape;

/// How often a bar of unknown length turns while no byte moves.
const TICK: Duration = Duration::from_millis(200);

/// Characters of a name beside a bar.
const NAME_MAX: usize = 24;

/// A bar that goes away when dropped.
#[derive(Debug)]
pub(crate) struct Bar(ProgressBar);

impl Bar {
    /// Shows a bar under this name; an unseen one where it is not wanted.
    pub(crate) fn start(context: &Context, name: &str) -> Self {
        let unwanted = context.quiet() || context.out.json();
        let target = if unwanted { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(None, target).with_message(shortened(&escape(name)));
        bar.set_style(style("{msg}  {spinner} {bytes}  {bytes_per_sec}"));
        if !bar.is_hidden() {
            bar.enable_steady_tick(TICK);
        }
        Self(bar)
    }

    /// What the client library calls as bytes move.
    pub(crate) fn callback(&self) -> Progress {
        let bar = self.0.clone();
        Arc::new(move |transferred: Transferred| {
            if let Some(total) = transferred.total_bytes
                && bar.length() != Some(total)
            {
                bar.set_length(total);
                bar.set_style(style("{msg}  {wide_bar} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left"));
            }
            bar.set_position(transferred.done_bytes);
        })
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// The end of a long name, so that the bar still fits on a line.
fn shortened(name: &str) -> String {
    let characters = name.chars().count();
    if characters <= NAME_MAX {
        return name.to_owned();
    }
    let end: String = name.chars().skip(characters - NAME_MAX + 1).collect();
    format!("…{end}")
}

fn style(template: &'static str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates above are constants, and a test reads each of them")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_keep_their_end() {
        assert_eq!(shortened("short"), "short");
        assert_eq!(shortened("ä".repeat(24).as_str()), "ä".repeat(24));
        assert_eq!(shortened("/a/long/path/to/some/file.txt"), "…g/path/to/some/file.txt");
    }

    #[test]
    fn a_bar_follows_known_and_unknown_totals() {
        let bar = Bar(ProgressBar::hidden());
        let progress = bar.callback();
        progress(Transferred { done_bytes: 5, total_bytes: None });
        assert_eq!((bar.0.position(), bar.0.length()), (5, None));
        progress(Transferred { done_bytes: 6, total_bytes: Some(10) });
        assert_eq!((bar.0.position(), bar.0.length()), (6, Some(10)));
        bar.0.set_style(style("{msg}  {spinner} {bytes}  {bytes_per_sec}"));
    }
}
