//! First starts that do not come to their end: the next one must finish them.

use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mini_tectonic_client::{BlobId, Client, ClientConfig, DownloadOptions, Sink, Source, UploadOptions, pb};
use tokio::runtime::Runtime;
use tokio::time::Instant;

use crate::clients::patient;
use crate::content::Content;
use crate::points::{Point, When};
use crate::random::Random;
use crate::services::{Failpoint, Place, Process, Role, is_killed};
use crate::tally::Tally;

/// A process that was told to die at its start does so within this time, however busy the machine is.
const DEADLINE: Duration = Duration::from_secs(60);

/// What every trial needs.
#[derive(Debug)]
pub(crate) struct Trials<'a> {
    pub(crate) binaries: &'a Path,
    pub(crate) folder: &'a Path,
    pub(crate) runtime: &'a Runtime,
    pub(crate) tally: &'a mut Tally,
    pub(crate) random: &'a mut Random,
}

impl Trials<'_> {
    /// Dies at a point at the given time, in a folder of its own; then what was begun must come to its end.
    pub(crate) fn run(&mut self, point: Point, count: u64, as_one_process: bool) -> Result<()> {
        let storage = self.folder.join(format!("first-{}", self.tally.kills));
        let place = Place::new(self.binaries, storage, self.random)?;
        let failpoint = Failpoint { name: point.name, count };
        let processes = match point.when {
            When::Reissue => self.die_reissuing(&place, failpoint)?,
            When::Import => self.die_importing(&place, failpoint)?,
            When::FirstStart { .. } | When::Start | When::Load | When::LoadAfter(_) | When::StartAfter(_)
                if as_one_process =>
            {
                self.die_starting(&place, Role::Serve, failpoint, &[])?
            }
            When::FirstStart { .. } | When::Start | When::Load | When::LoadAfter(_) | When::StartAfter(_) => {
                self.die_starting(&place, point.role, failpoint, &[])?
            }
        };
        self.runtime.block_on(works(&place)).with_context(|| format!("after a first death at {failpoint:?}"))?;
        drop(processes);
        place.remove()
    }

    fn die_starting(
        &mut self,
        place: &Place,
        role: Role,
        failpoint: Failpoint,
        flags: &[&str],
    ) -> Result<Vec<Process>> {
        let told = |other: Role| (other == role).then_some(failpoint);
        let mut doomed = place.start(role, told(role), flags)?;
        let mut processes = Vec::new();
        for other in [Role::Metadata, Role::Chunk] {
            if role != Role::Serve && other != role {
                processes.push(place.start(other, None, &[])?);
            }
        }
        let began = Instant::now();
        while !doomed.has_died()? {
            ensure!(began.elapsed() < DEADLINE, "{role:?} never came to {failpoint:?}");
            std::thread::park_timeout(Duration::from_millis(1));
        }
        self.tally.hit(failpoint.name);
        processes.push(place.start(role, None, flags)?);
        for process in &mut processes {
            let ready = process.ready()?.context("it was told to die nowhere")?;
            if process.role() == role {
                self.tally.ready_after(ready);
            }
        }
        Ok(processes)
    }

    fn die_reissuing(&mut self, place: &Place, failpoint: Failpoint) -> Result<Vec<Process>> {
        let processes = self.start_both(place)?;
        self.kill_all(processes)?;
        self.die_starting(place, Role::Metadata, failpoint, &["--reissue-admin-token"])
    }

    /// The metadata is exported and lost; its import dies, and is run again.
    fn die_importing(&mut self, place: &Place, failpoint: Failpoint) -> Result<Vec<Process>> {
        let processes = self.start_both(place)?;
        let proof = self.runtime.block_on(Proof::put(place, "exported"))?;
        let export = place.storage.join("export");
        let to_export: [&OsStr; 4] = ["export".as_ref(), "--include-secrets".as_ref(), "-o".as_ref(), export.as_ref()];
        ensure!(place.operate(&to_export, None)?.success(), "the export failed");
        self.kill_all(processes)?;
        std::fs::remove_dir_all(place.storage.join("metadata"))?;
        let storage = place.storage.as_ref();
        let to_import: [&OsStr; 4] = ["import".as_ref(), "--storage".as_ref(), storage, export.as_ref()];
        ensure!(is_killed(place.operate(&to_import, Some(failpoint))?), "the import never came to {failpoint:?}");
        self.tally.hit(failpoint.name);
        ensure!(place.operate(&to_import, None)?.success(), "the import could not be run again");
        let processes = self.start_both(place)?;
        self.runtime.block_on(proof.get(place)).context("read what was exported")?;
        Ok(processes)
    }

    fn start_both(&self, place: &Place) -> Result<Vec<Process>> {
        let mut processes = vec![place.start(Role::Metadata, None, &[])?, place.start(Role::Chunk, None, &[])?];
        for process in &mut processes {
            process.ready()?;
        }
        Ok(processes)
    }

    fn kill_all(&mut self, processes: Vec<Process>) -> Result<()> {
        self.tally.kills += processes.len() as u64;
        processes.into_iter().try_for_each(Process::kill)
    }
}

/// A blob that was put, and the credential to get it.
struct Proof {
    token: String,
    blob: BlobId,
}

const CONTENT: Content = Content { size: 100_000, seed: 1 };

impl Proof {
    /// A new tenant puts a blob.
    async fn put(place: &Place, tenant: &str) -> Result<Self> {
        let admin = Client::new(config(place).with_token(place.admin_token()?))?;
        let tenant = admin.register_tenant(&tenant.parse()?, pb::Quota::default()).await?;
        let token = tenant.token.as_str().to_owned();
        let client = Client::new(config(place).with_token(&token))?;
        let source = Source::Reader(Box::new(CONTENT.reader()));
        let blob = client.upload(source, UploadOptions::default()).await?.blob_id;
        Ok(Self { token, blob })
    }

    /// It comes out again.
    async fn get(&self, place: &Place) -> Result<()> {
        let client = Client::new(config(place).with_token(&self.token))?;
        let (comparison, compared) = CONTENT.comparison();
        client.download(self.blob, DownloadOptions::default(), Sink::Writer(Box::new(comparison))).await?;
        ensure!(compared.is_whole(), "the blob came back different");
        Ok(())
    }
}

fn config(place: &Place) -> ClientConfig {
    ClientConfig::new(place.endpoint()).with_retry(patient())
}

/// A blob goes in and comes out.
async fn works(place: &Place) -> Result<()> {
    Proof::put(place, "works").await?.get(place).await
}
