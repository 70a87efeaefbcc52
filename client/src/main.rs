//! The command line tool `mini-tectonic-rs`.

mod cli;

fn main() -> std::process::ExitCode {
    cli::run()
}
