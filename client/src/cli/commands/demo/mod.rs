//! `demo`: the whole job once, in a folder of its own: both services start, a tenant registers, a file goes in, is listed,
//! looked at, found on disk, comes back, is compared byte by byte, and is deleted.
//!
//! The commands that it shows are the ones that it runs: each goes through the same parser and the same code as if it had
//! been typed. It succeeds only if every byte matched, and leaves nothing behind.

mod compare;
mod stage;

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use indicatif::HumanBytes;
use proto::limits;

use crate::cli::context::Context;
use crate::cli::failure::{Exit, Failure};
use crate::cli::sandbox::Sandbox;
use crate::cli::units::size_in_full;
use compare::Sums;
use stage::Stage;

/// Do the whole job once in a fresh folder: store a file, get it back, compare
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// The file to use; this program itself when not given.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Keep the folder and the blob in it.
    #[arg(long)]
    keep: bool,
}

/// The tenant that the demo registers.
const TENANT: &str = "demo";

impl Demo {
    /// Runs the command.
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let file = self.file()?;
        let original = Sums::of(&file)?;
        context.out.line("MiniTectonic-RS: one file goes in and comes out again, through two real services.\n")?;
        context.out.line(&format!("file     {}", file.display()))?;
        context.out.line(&format!("size     {}", size_in_full(original.size_bytes)))?;
        context.out.line(&format!("SHA-256  {}", original.sha256))?;
        let began = Instant::now();
        let sandbox = Sandbox::start("mini-tectonic-demo-", original.block_bytes()).await?;
        let outcome = self.play(context, &sandbox, began, &file, &original).await;
        self.close(context, sandbox, outcome, &original).await
    }

    /// The running program is a real file of some size that is always there.
    fn file(&self) -> Result<PathBuf, Failure> {
        let given = self.file.clone().map_or_else(std::env::current_exe, Ok);
        given.map_err(|error| Failure::local("cannot tell which file this program is; name one", &error))
    }

    async fn play(
        &self,
        context: &Context,
        sandbox: &Sandbox,
        began: Instant,
        file: &Path,
        original: &Sums,
    ) -> Result<(), Failure> {
        let mut stage = Stage::new(context, sandbox)?;
        stage.step("Start both services in a fresh folder, on free ports")?;
        stage.shown(&format!("metadata service  {}", sandbox.services().endpoint()))?;
        stage.shown(&format!("chunk service     {}", sandbox.services().chunk_endpoint()))?;
        stage.shown(&format!("storage           {}", sandbox.storage().display()))?;
        let blocks = HumanBytes(original.block_bytes());
        stage.shown(&format!("blocks of         {blocks}; by default {}", HumanBytes(limits::BLOCK_BYTES)))?;
        stage.took(began, None)?;

        stage.step("Register a tenant; its token goes into a credentials file in that folder")?;
        stage.run(&["register-tenant", "-t", TENANT]).await?;
        let id = put(&mut stage, file, original).await?;
        stage.step("List the tenant's blobs, and look at this one")?;
        stage.run(&["list-blobs", "-t", TENANT]).await?;
        stage.run(&["stat", "-t", TENANT, "-b", &id]).await?;
        stage.step("Look at the disk: one file per chunk, and beside it a checksum file that coreutils can check")?;
        stage.show_chunks(&sandbox.storage().join("chunks"))?;
        get_and_compare(&mut stage, &id, file, original, &sandbox.folder().join("copy")).await?;
        if self.keep { Ok(()) } else { delete(&mut stage, &id).await }
    }

    async fn close(
        &self,
        context: &Context,
        sandbox: Sandbox,
        outcome: Result<(), Failure>,
        original: &Sums,
    ) -> Result<(), Failure> {
        let (drained, folder) = sandbox.stop().await;
        if self.keep {
            let storage = folder.keep().join("storage");
            context.out.line(&format!("\nKept. To go on: mini-tectonic-rs serve --storage {}", storage.display()))?;
        }
        outcome?;
        if !drained {
            context.warn("some calls had to be cut when the services stopped");
        }
        let matched = format!("\nEvery byte matched: {} bytes, SHA-256 {}", original.size_bytes, original.sha256);
        context.out.line(&matched)
    }
}

async fn put(stage: &mut Stage<'_>, file: &Path, original: &Sums) -> Result<String, Failure> {
    stage.step("Put the file: its bytes go straight to the chunk service, block by block")?;
    let began = Instant::now();
    let printed = stage.run(&["put", "-t", TENANT, "-f", &file.to_string_lossy()]).await?;
    stage.took(began, Some(original.size_bytes))?;
    Ok(printed.trim().to_owned())
}

async fn get_and_compare(
    stage: &mut Stage<'_>,
    id: &str,
    file: &Path,
    original: &Sums,
    copy: &Path,
) -> Result<(), Failure> {
    stage.step("Get it back: every frame and every block is verified on the way")?;
    let began = Instant::now();
    stage.run(&["get", "-t", TENANT, "-b", id, "-o", &copy.to_string_lossy()]).await?;
    stage.took(began, Some(original.size_bytes))?;

    stage.step("Compare, byte by byte")?;
    let began = Instant::now();
    compare::compare(file, copy, original)?;
    stage.shown("the files are equal")?;
    stage.took(began, Some(original.size_bytes))
}

async fn delete(stage: &mut Stage<'_>, id: &str) -> Result<(), Failure> {
    stage.step("Delete it; from then on nobody finds it")?;
    stage.run(&["delete", "-t", TENANT, "-b", id, "-y"]).await?;
    match stage.run(&["stat", "-t", TENANT, "-b", id]).await {
        Err(gone) if gone.exit() == Exit::NotFound => stage.shown(&format!("error: {}", gone.message())),
        Err(other) => Err(other),
        Ok(_still_there) => Err(Failure::new(Exit::Other, format!("blob {id} is still there after its deletion"))),
    }
}
