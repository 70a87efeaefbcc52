//! Clients that put, get, list and delete until the power goes.

use std::io::{Cursor, Write};
use std::sync::{Arc, Mutex, PoisonError};

use mini_tectonic_client::{
    Blob, BlobId, Client, ClientConfig, DownloadOptions, Error, ListOptions, RetryPolicy, Sink, Source, UploadOptions,
};
use tokio::task::JoinSet;
use tokio_stream::StreamExt as _;

use crate::dice::Dice;
use crate::ledger::{Entry, Ledger, name_of, number_of};
use crate::machine::Machine;

const CLIENTS: usize = 6;
/// Blobs from which on more are deleted than put.
const STORED_ENOUGH: usize = 150;
const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// A client that takes each failure for final: what it did not hear of is not known.
pub(crate) fn client(endpoint: &str, token: &str) -> Result<Client, Error> {
    Client::new(ClientConfig::new(endpoint).with_token(token).with_retry(RetryPolicy::never()))
}

/// Sizes around those at which something changes: none, one frame, a page, a piece, several frames, two chunks.
fn draw_size(dice: &Dice) -> usize {
    match dice.below(100) {
        0..5 => dice.below(2),
        5..60 => dice.up_to_by_magnitude(8 * KIB),
        60..80 => 64 * KIB - 1 + dice.below(3),
        80..95 => dice.below(512 * KIB),
        95..99 => dice.below(3 * MIB),
        _ => 8 * MIB + dice.below(MIB),
    }
}

/// Runs the clients until the power goes. Returns what failed although it had not.
pub(crate) async fn run(client: &Client, ledger: &Arc<Ledger>, machine: &Arc<Machine>, seed: u64) -> Vec<String> {
    let mut tasks = JoinSet::new();
    for number in 0..CLIENTS {
        let (client, ledger, machine) = (client.clone(), Arc::clone(ledger), Arc::clone(machine));
        let dice = Dice::new(seed.wrapping_add(number as u64));
        tasks.spawn(async move {
            while !machine.failing() {
                if let Err(failure) = act(&client, &ledger, &dice).await
                    && !machine.failing()
                {
                    return Some(failure);
                }
            }
            None
        });
    }
    let ended = tasks.join_all().await;
    ended.into_iter().flatten().collect()
}

async fn act(client: &Client, ledger: &Ledger, dice: &Dice) -> Result<(), String> {
    let stored = ledger.any_stored(dice);
    let deletes = if stored.is_some_and(|(_, _, count)| count > STORED_ENOUGH) { 40 } else { 15 };
    match (dice.below(100), stored) {
        (0..3, _) => list(client, ledger).await,
        (3..20, Some((entry, blob, _))) => get(client, ledger, entry, blob).await,
        (draw, Some((entry, blob, _))) if draw < 20 + deletes => delete(client, ledger, entry, blob).await,
        _ => put(client, ledger, draw_size(dice)).await,
    }
}

async fn put(client: &Client, ledger: &Ledger, size: usize) -> Result<(), String> {
    let entry = ledger.begin_put(size);
    // A chunk whose size is not known is never written past the page cache.
    let is_stream = entry.number.is_multiple_of(2);
    let source = match entry.bytes() {
        bytes if is_stream => Source::Reader(Box::new(Cursor::new(bytes))),
        bytes => Source::Bytes(bytes.into()),
    };
    let options = UploadOptions { display_name: name_of(entry.number), ..UploadOptions::default() };
    match client.upload(source, options).await {
        Ok(blob) => {
            ledger.put_acked(entry.number, blob.blob_id);
            Ok(())
        }
        Err(error) => Err(format!("put {}: {error:?}", entry.number)),
    }
}

async fn delete(client: &Client, ledger: &Ledger, entry: Entry, blob: BlobId) -> Result<(), String> {
    if !ledger.begin_delete(entry.number, blob) {
        return Ok(());
    }
    let deleted = client.delete_blob(blob).await;
    deleted.map(|()| ledger.delete_acked(entry.number)).map_err(|error| format!("delete {}: {error:?}", entry.number))
}

async fn get(client: &Client, ledger: &Ledger, entry: Entry, blob: BlobId) -> Result<(), String> {
    match read_back(client, blob, entry).await {
        Err(failure) if ledger.is_stored(entry.number) => Err(failure),
        Err(_) | Ok(()) => Ok(()),
    }
}

async fn list(client: &Client, ledger: &Ledger) -> Result<(), String> {
    for blob in list_all(client).await? {
        if let Some(number) = number_of(&blob) {
            ledger.shown(number, blob.blob_id);
        }
    }
    Ok(())
}

/// All blobs.
pub(crate) async fn list_all(client: &Client) -> Result<Vec<Blob>, String> {
    let blobs = client.list_blobs(ListOptions::default()).collect::<Result<Vec<_>, _>>().await;
    blobs.map_err(|error| format!("list: {error:?}"))
}

/// Reads a blob in full and compares every byte.
pub(crate) async fn read_back(client: &Client, blob: BlobId, entry: Entry) -> Result<(), String> {
    let buffer = SharedBuffer::default();
    let sink = Sink::Writer(Box::new(buffer.clone()));
    let got = client.download(blob, DownloadOptions::default(), sink).await;
    got.map_err(|error| format!("get {} as {blob}: {error:?}", entry.number))?;
    let bytes = std::mem::take(&mut *buffer.0.lock().unwrap_or_else(PoisonError::into_inner));
    if bytes == entry.bytes() { Ok(()) } else { Err(format!("get {} as {blob}: other bytes", entry.number)) }
}

#[derive(Debug, Clone, Default)]
struct SharedBuffer(Arc<Mutex<Vec<u8>>>);

impl Write for SharedBuffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
