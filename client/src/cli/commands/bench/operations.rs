//! What is measured: puts, gets, looks and deletes of objects, alone and mixed.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use mini_tectonic_client::{Blob, Client, DownloadOptions, Error, Sink, Source, UploadOptions};

use super::chance::{Purpose, draw};
use super::content::{Comparing, Content};
use super::mix::Mix;
use super::objects::{Object, Objects, name};
use super::phase::{Done, Kind, Operation};
use super::scratch::Scratch;
use super::sizes::Sizes;

/// Objects up to this size are put from memory and got into it; larger ones pass through a file and a stream.
const MEMORY_BYTES_MAX: u64 = 1024 * 1024;

/// What operations work with.
#[derive(Debug)]
pub(super) struct Bench {
    /// Workers are spread over these.
    pub(super) clients: Vec<Client>,
    /// One for each worker.
    pub(super) scratches: Vec<Scratch>,
    pub(super) content: Content,
    pub(super) sizes: Sizes,
    pub(super) seed: u64,
}

impl Bench {
    /// The client of a worker.
    pub(super) fn client(&self, worker: usize) -> &Client {
        self.clients.get(worker % self.clients.len().max(1)).expect("a benchmark has a client")
    }

    /// Stores the object of this number.
    pub(super) async fn put(&self, worker: usize, number: u64, stored: &Objects) -> Result<Option<Done>, Error> {
        let size_bytes = self.sizes.of(self.seed, number);
        let source = match self.in_memory(number) {
            Some(content) => Source::Bytes(content),
            None => self.in_file(worker, number, size_bytes)?,
        };
        let began = Instant::now();
        let blob = self.client(worker).upload(source, self.options(number)).await?;
        let took = began.elapsed();
        stored.add(Object { blob_id: blob.blob_id, number, size_bytes });
        Ok(done(Kind::Put, size_bytes, took))
    }

    /// Stores the objects of these numbers by one call of the library.
    pub(super) async fn put_batch(
        &self,
        worker: usize,
        numbers: Range<u64>,
        stored: &Objects,
    ) -> Result<Option<Done>, Error> {
        let too_large = || Error::Invalid { what: "size", problem: "objects of a batch are at most 1 MiB".to_owned() };
        let made = numbers.clone().map(|number| Some((self.in_memory(number)?, self.options(number))));
        let made = made.collect::<Option<Vec<_>>>().ok_or_else(too_large)?;
        let began = Instant::now();
        let outcomes = self.client(worker).upload_batch(made).await?;
        let took = began.elapsed();
        let mut bytes = 0;
        for (number, outcome) in numbers.zip(outcomes) {
            let Blob { blob_id, size_bytes, .. } = outcome?;
            stored.add(Object { blob_id, number, size_bytes });
            bytes += size_bytes;
        }
        Ok(done(Kind::Put, bytes, took))
    }

    fn options(&self, number: u64) -> UploadOptions {
        UploadOptions { display_name: name(self.seed, number), ..UploadOptions::default() }
    }

    /// An object as its bytes, if it is not large.
    fn in_memory(&self, number: u64) -> Option<Bytes> {
        let size_bytes = self.sizes.of(self.seed, number);
        let mut bytes = vec![0; usize::try_from(size_bytes).ok().filter(|_| size_bytes <= MEMORY_BYTES_MAX)?];
        self.content.fill(number, 0, &mut bytes);
        Some(bytes.into())
    }

    fn in_file(&self, worker: usize, number: u64, size_bytes: u64) -> Result<Source, Error> {
        let scratch = self.scratches.get(worker).expect("every worker has a file");
        let path = scratch.path().to_path_buf();
        match scratch.become_object(&self.content, number, size_bytes) {
            Ok(()) => Ok(Source::File(path)),
            Err(source) => Err(Error::Local { action: "write", path, source }),
        }
    }

    /// Reads an object and compares every byte with what it must hold.
    pub(super) async fn get(&self, worker: usize, object: &Object) -> Result<Option<Done>, Error> {
        if object.size_bytes > MEMORY_BYTES_MAX {
            return self.get_large(worker, object).await;
        }
        let began = Instant::now();
        let (_blob, bytes) = self.client(worker).read(object.blob_id, MEMORY_BYTES_MAX).await?;
        let took = began.elapsed();
        self.compare(object, &bytes)?;
        Ok(done(Kind::Get, object.size_bytes, took))
    }

    /// Reads objects by one call of the library, and compares every byte.
    pub(super) async fn get_batch(&self, worker: usize, objects: &[Arc<Object>]) -> Result<Option<Done>, Error> {
        let ids: Vec<_> = objects.iter().map(|object| object.blob_id).collect();
        let began = Instant::now();
        let outcomes = self.client(worker).read_batch(&ids, MEMORY_BYTES_MAX).await?;
        let took = began.elapsed();
        for (object, outcome) in objects.iter().zip(outcomes) {
            self.compare(object, &outcome?.1)?;
        }
        Ok(done(Kind::Get, objects.iter().map(|object| object.size_bytes).sum(), took))
    }

    fn compare(&self, object: &Object, bytes: &[u8]) -> Result<(), Error> {
        let right = bytes.len() as u64 == object.size_bytes && self.content.matches(object.number, 0, bytes);
        if right { Ok(()) } else { Err(damaged(object, "it is not what was put")) }
    }

    async fn get_large(&self, worker: usize, object: &Object) -> Result<Option<Done>, Error> {
        let right = Arc::<AtomicU64>::default();
        let reader = Comparing::new(&self.content, object.number, object.size_bytes, &right);
        let sink = Sink::Writer(Box::new(reader));
        let began = Instant::now();
        let got = self.client(worker).download(object.blob_id, DownloadOptions::default(), sink).await;
        let took = began.elapsed();
        got.map_err(|error| named(error, object))?;
        if right.load(Ordering::Relaxed) != object.size_bytes {
            return Err(damaged(object, "it ends too early"));
        }
        Ok(done(Kind::Get, object.size_bytes, took))
    }

    /// Asks what is known about an object.
    pub(super) async fn stat(&self, worker: usize, object: &Object) -> Result<Option<Done>, Error> {
        let began = Instant::now();
        let blob = self.client(worker).get_blob(object.blob_id).await?;
        let took = began.elapsed();
        if blob.size_bytes != object.size_bytes {
            return Err(damaged(object, "it has another size than what was put"));
        }
        Ok(done(Kind::Stat, 0, took))
    }

    /// Deletes an object.
    pub(super) async fn delete(&self, worker: usize, object: &Object) -> Result<Option<Done>, Error> {
        let began = Instant::now();
        self.client(worker).delete_blob(object.blob_id).await?;
        Ok(done(Kind::Delete, 0, began.elapsed()))
    }

    async fn one_of(&self, kind: Kind, worker: usize, number: u64, objects: &Objects) -> Result<Option<Done>, Error> {
        let draw = draw(self.seed, number, Purpose::Object);
        let object = match kind {
            Kind::Get | Kind::Stat => objects.any(draw),
            Kind::Delete => objects.take(draw),
            Kind::Put | Kind::List | Kind::Ping => None,
        };
        match (kind, object) {
            (Kind::Get, Some(object)) => self.get(worker, &object).await,
            (Kind::Stat, Some(object)) => self.stat(worker, &object).await,
            (Kind::Delete, Some(object)) => self.delete(worker, &object).await,
            // Where there is nothing to read or to delete, something is put.
            (_, _) => self.put(worker, number, objects).await,
        }
    }
}

#[expect(clippy::unnecessary_wraps, reason = "operations end with it")]
fn done(kind: Kind, bytes: u64, took: Duration) -> Option<Done> {
    Some(Done { kind, bytes, entries: 0, took })
}

fn damaged(object: &Object, problem: &str) -> Error {
    Error::Damaged { blob_id: object.blob_id, problem: problem.to_owned() }
}

/// What the comparison refused is the blob's fault, not the output's.
fn named(error: Error, object: &Object) -> Error {
    if let Error::Local { source, .. } = &error
        && source.kind() == io::ErrorKind::InvalidData
    {
        return damaged(object, &source.to_string());
    }
    error
}

/// Stores objects whose numbers begin with `first`.
pub(super) fn puts(bench: &Arc<Bench>, first: u64, stored: &Objects) -> Operation {
    let (bench, stored) = (Arc::clone(bench), stored.clone());
    Arc::new(move |worker, number| {
        let (bench, stored) = (Arc::clone(&bench), stored.clone());
        Box::pin(async move { bench.put(worker, first + number, &stored).await })
    })
}

/// Stores objects whose numbers begin with `first`, `batch` by each call; never more than `count` in all.
pub(super) fn put_batches(bench: &Arc<Bench>, first: u64, batch: u64, count: u64, stored: &Objects) -> Operation {
    let (bench, stored) = (Arc::clone(bench), stored.clone());
    Arc::new(move |worker, number| {
        let (bench, stored) = (Arc::clone(&bench), stored.clone());
        let begin = number.saturating_mul(batch).min(count);
        let numbers = first + begin..first + begin.saturating_add(batch).min(count);
        Box::pin(async move { bench.put_batch(worker, numbers, &stored).await })
    })
}

/// Reads these objects in their order, `batch` by each call.
pub(super) fn get_batches(bench: &Arc<Bench>, objects: Vec<Arc<Object>>, batch: u64) -> Operation {
    let (bench, objects) = (Arc::clone(bench), Arc::<[_]>::from(objects));
    let batch = usize::try_from(batch).unwrap_or(usize::MAX);
    Arc::new(move |worker, number| {
        let (bench, objects) = (Arc::clone(&bench), Arc::clone(&objects));
        Box::pin(async move {
            let number = usize::try_from(number).unwrap_or(usize::MAX);
            match objects.chunks(batch).nth(number) {
                Some(objects) => bench.get_batch(worker, objects).await,
                None => Ok(None),
            }
        })
    })
}

/// How often each object's turn comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turns {
    Once,
    Again,
}

/// Reads these objects in their order.
pub(super) fn gets(bench: &Arc<Bench>, objects: Vec<Arc<Object>>, turns: Turns) -> Operation {
    let (bench, objects) = (Arc::clone(bench), Arc::<[_]>::from(objects));
    Arc::new(move |worker, number| {
        let bench = Arc::clone(&bench);
        let object = in_turn(&objects, number, turns);
        Box::pin(async move {
            match object {
                Some(object) => bench.get(worker, &object).await,
                None => Ok(None),
            }
        })
    })
}

/// Deletes these objects in their order.
pub(super) fn deletes(bench: &Arc<Bench>, objects: Vec<Arc<Object>>) -> Operation {
    let (bench, objects) = (Arc::clone(bench), Arc::<[_]>::from(objects));
    Arc::new(move |worker, number| {
        let bench = Arc::clone(&bench);
        let object = in_turn(&objects, number, Turns::Once);
        Box::pin(async move {
            match object {
                Some(object) => bench.delete(worker, &object).await,
                None => Ok(None),
            }
        })
    })
}

fn in_turn(objects: &[Arc<Object>], number: u64, turns: Turns) -> Option<Arc<Object>> {
    let count = u64::try_from(objects.len()).unwrap_or(u64::MAX);
    let number = match turns {
        Turns::Once => number,
        Turns::Again => number.checked_rem(count)?,
    };
    objects.get(usize::try_from(number).ok()?).cloned()
}

/// A bit of everything, as the mix says, over objects that come and go.
pub(super) fn mixed(bench: &Arc<Bench>, mix: &Mix, first: u64, objects: &Objects) -> Operation {
    let (bench, mix, objects) = (Arc::clone(bench), mix.clone(), objects.clone());
    Arc::new(move |worker, number| {
        let (bench, objects) = (Arc::clone(&bench), objects.clone());
        let kind = mix.kind(bench.seed, number);
        Box::pin(async move { bench.one_of(kind, worker, first + number, &objects).await })
    })
}
