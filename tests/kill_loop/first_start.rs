//! First starts that do not come to their end: the next one must finish them.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mini_tectonic_client::{Client, ClientConfig, DownloadOptions, Sink, Source, UploadOptions, pb};
use tokio::runtime::Runtime;
use tokio::time::Instant;

use crate::clients::patient;
use crate::content::Content;
use crate::points::{Point, When};
use crate::random::Random;
use crate::services::{Failpoint, Place, Process, Role};
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
            When::FirstStart { .. } | When::Start | When::Load | When::LoadAfter(_) if as_one_process => {
                self.die_starting(&place, Role::Serve, failpoint, &[])?
            }
            When::FirstStart { .. } | When::Start | When::Load | When::LoadAfter(_) => {
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
        let mut processes = [place.start(Role::Metadata, None, &[])?, place.start(Role::Chunk, None, &[])?];
        for process in &mut processes {
            process.ready()?;
        }
        self.tally.kills += processes.len() as u64;
        processes.into_iter().try_for_each(Process::kill)?;
        self.die_starting(place, Role::Metadata, failpoint, &["--reissue-admin-token"])
    }
}

/// A blob goes in and comes out.
async fn works(place: &Place) -> Result<()> {
    let config = || ClientConfig::new(place.endpoint()).with_retry(patient());
    let admin = Client::new(config().with_token(place.admin_token()?))?;
    let tenant = admin.register_tenant(&"first".parse()?, pb::Quota::default()).await?;
    let client = Client::new(config().with_token(tenant.token.as_str()))?;
    let content = Content { size: 100_000, seed: 1 };
    let blob = client.upload(Source::Reader(Box::new(content.reader())), UploadOptions::default()).await?;
    let (comparison, compared) = content.comparison();
    client.download(blob.blob_id, DownloadOptions::default(), Sink::Writer(Box::new(comparison))).await?;
    ensure!(compared.is_whole(), "the blob came back different");
    Ok(())
}
