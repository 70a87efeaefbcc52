//! `completions`: a script that teaches a shell the command line.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::cli::args::Cli;
use crate::cli::context::Context;
use crate::cli::failure::Failure;

/// Print a script that completes this command line in a shell
///
/// For example: mini-tectonic-rs completions bash > ~/.local/share/bash-completion/completions/mini-tectonic-rs
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    /// Runs the command.
    pub(crate) fn run(self, context: &Context) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "mini-tectonic-rs", &mut script);
        context.out.write(&script)
    }
}
