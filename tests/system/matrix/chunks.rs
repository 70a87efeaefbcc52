//! The methods of the chunk service, which know capabilities only.

use prost::Message as _;
use proto::capability::Permit;
use proto::checksum::crc32c;
use proto::entropy::OsEntropy;
use proto::ids::ChunkId;
use proto::pb;
use tonic::Code;

use super::Cell;
use super::capabilities::{expired, invalid, of};
use super::site::Site;
use super::spec::{Expected, Target, about, bad_field, refusal, unauthenticated};
use super::targets::no_uuids;

/// A method, a chunk of the owner's that it may be asked about, and the capability for that.
struct Row {
    path: &'static str,
    /// Names the chunk; none for a method that is about no chunk.
    field: Option<&'static str>,
    request: fn(&str) -> Vec<u8>,
    chunk: String,
    capability: String,
    /// The same operation on a chunk of another tenant.
    foreign: String,
    /// The same operation on a chunk that was deleted, and what comes of it.
    gone: Option<(String, String, Expected)>,
}

fn frame(chunk_id: &str) -> Vec<u8> {
    let content = bytes::Bytes::from(crate::cluster::content(100, 77));
    let data = pb::ChunkData { crc32c: Some(crc32c(&content)), content };
    let spec = pb::WriteChunkSpec { chunk_id: chunk_id.to_owned(), size_bytes: Some(100) };
    let message =
        pb::WriteChunkRequest { spec: Some(spec), data: Some(data), finish_write: true, ..Default::default() };
    message.encode_to_vec()
}

/// The same chunk as the only one of a batch, by the call's capability.
fn write_of_one(chunk_id: &str) -> Vec<u8> {
    let content = bytes::Bytes::from(crate::cluster::content(100, 77));
    let data = pb::ChunkData { crc32c: Some(crc32c(&content)), content };
    let item = pb::WriteChunksItem { chunk_id: chunk_id.to_owned(), data: Some(data), ..Default::default() };
    pb::WriteChunksRequest { chunks: vec![item] }.encode_to_vec()
}

fn read_of_one(chunk_id: &str) -> Vec<u8> {
    let item = pb::ReadChunksItem { chunk_id: chunk_id.to_owned(), ..Default::default() };
    pb::ReadChunksRequest { chunks: vec![item] }.encode_to_vec()
}

fn look(chunk_id: &str) -> Vec<u8> {
    pb::VerifyChunkRequest { chunk_id: chunk_id.to_owned(), repair: false }.encode_to_vec()
}

fn rows(site: &Site) -> Vec<Row> {
    let (owner, stranger) = (&site.owner, &site.stranger);
    let planned = &owner.upload.blocks[0].chunks[0];
    let theirs = &stranger.upload.blocks[0].chunks[0];
    let Permit::Read(claims) = site.read(&owner.location.capability).permit else { panic!("a layout permits to read") };
    let verify = Permit::Verify(claims);
    let row =
        |method: &'static str, request: fn(&str) -> Vec<u8>, chunk: &str, capability: String, foreign: String| Row {
            path: proto::METHOD_PATHS
                .iter()
                .copied()
                .find(|path| path.ends_with(&format!("ChunkService/{method}")))
                .unwrap(),
            field: Some("chunk_id"),
            request,
            chunk: chunk.to_owned(),
            capability,
            foreign,
            gone: None,
        };
    let (place, other) = (&owner.location, &stranger.location);
    let gone = |permit: Option<Permit>, expected: Expected| {
        let capability = &owner.gone.capability;
        let text = permit.map_or_else(|| capability.clone(), |permit| of(site, capability, permit));
        Some((owner.gone.chunk_id.clone(), text, expected))
    };
    let missing = format!("chunk {} is missing at this node", owner.gone.chunk_id);
    let missing = about(refusal(Code::DataLoss, "CHUNK_MISSING", &missing), "chunk", &owner.gone.chunk_id);
    let read =
        |chunk_id: &str| pb::ReadChunkRequest { chunk_id: chunk_id.to_owned(), ..Default::default() }.encode_to_vec();
    let status = |chunk_id: &str| pb::QueryWriteStatusRequest { chunk_id: chunk_id.to_owned() }.encode_to_vec();
    let get = |chunk_id: &str| pb::GetChunkRequest { chunk_id: chunk_id.to_owned() }.encode_to_vec();
    let delete = |chunk_id: &str| pb::DeleteChunkRequest { chunk_id: chunk_id.to_owned() }.encode_to_vec();
    let list = |_chunk_id: &str| pb::ListChunksRequest::default().encode_to_vec();
    let (mine, other_plan) = (planned.capability.clone(), theirs.capability.clone());
    let may = |capability: &str, permit: Permit| of(site, capability, permit);
    vec![
        Row {
            field: Some("spec.chunk_id"),
            ..row("WriteChunk", frame, &planned.chunk_id, mine.clone(), other_plan.clone())
        },
        row("WriteChunks", write_of_one, &planned.chunk_id, mine.clone(), other_plan.clone()),
        Row {
            gone: gone(None, missing.clone()),
            ..row("ReadChunks", read_of_one, &place.chunk_id, place.capability.clone(), other.capability.clone())
        },
        row("QueryWriteStatus", status, &planned.chunk_id, mine.clone(), other_plan.clone()),
        Row {
            gone: gone(None, missing.clone()),
            ..row("ReadChunk", read, &place.chunk_id, place.capability.clone(), other.capability.clone())
        },
        Row {
            gone: gone(None, missing),
            ..row("GetChunk", get, &place.chunk_id, place.capability.clone(), other.capability.clone())
        },
        Row {
            gone: gone(Some(Permit::Delete), Expected::Answered),
            ..row(
                "DeleteChunk",
                delete,
                &planned.chunk_id,
                may(&mine, Permit::Delete),
                may(&other_plan, Permit::Delete),
            )
        },
        Row {
            gone: gone(Some(verify), Expected::Answered),
            ..row("VerifyChunk", look, &place.chunk_id, may(&place.capability, verify), may(&other.capability, verify))
        },
        Row { field: None, ..row("ListChunks", list, "", may(&mine, Permit::List), may(&other_plan, Permit::List)) },
    ]
}

fn not_valid() -> Expected {
    let message = "the capability does not permit this call here";
    Expected::Refused(refusal(Code::PermissionDenied, "CAPABILITY_INVALID", message))
}

fn over() -> Expected {
    let message = "the capability has expired; ask the metadata service for a fresh one";
    Expected::Refused(refusal(Code::PermissionDenied, "CAPABILITY_EXPIRED", message))
}

/// Chunks that a request may name, and what whoever holds the capability for the first is told.
fn targets(site: &Site, row: &Row) -> Vec<(Target, String, Expected)> {
    let Some(field) = row.field else { return vec![(Target::Own, String::new(), Expected::Answered)] };
    let never = ChunkId::generate(1, &OsEntropy).to_string();
    let mut targets = vec![(Target::Own, row.chunk.clone(), Expected::Answered)];
    targets.push((Target::Never(never.clone()), never, not_valid()));
    for foreign in [&site.stranger.location.chunk_id, &site.stranger.upload.blocks[0].chunks[0].chunk_id] {
        targets.push((Target::Foreign(foreign.clone()), foreign.clone(), not_valid()));
    }
    for text in no_uuids(&row.chunk) {
        let message = "must be a UUID in canonical lower case, such as 0190b5c4-7e5a-7cc3-98c4-dc0c0c07398f";
        let expected = bad_field(field, format!("{field}: {message}"));
        targets.push((Target::Malformed(text.clone()), text, expected));
    }
    targets
}

/// Credentials that are refused whatever the request says.
fn refused(site: &Site, row: &Row) -> Vec<(String, Vec<String>, Expected)> {
    let good = &row.capability;
    let bearer = |text: &str| vec![format!("Bearer {text}")];
    let missing = "a capability is needed: send it as 'authorization: Bearer <capability>'";
    let mut all: Vec<_> =
        invalid(site, good).into_iter().map(|(name, text)| (name, bearer(&text), not_valid())).collect();
    all.push(("none".to_owned(), Vec::new(), unauthenticated("TOKEN_MISSING", missing)));
    all.push(("an expired one".to_owned(), bearer(&expired(site, good)), over()));
    let keys = &site.keys;
    for (name, authorization) in [
        ("two", [bearer(good), bearer(good)].concat()),
        ("two, of which the first is wrong", [bearer("x"), bearer(good)].concat()),
        ("one without a scheme", vec![good.clone()]),
        ("one by another scheme", vec![format!("Basic {good}")]),
        ("a tenant's token", bearer(&site.owner.token)),
        ("the admin token", bearer(&keys.admin)),
        ("a join token", bearer(&keys.join)),
        ("the node's own token", bearer(&keys.node)),
    ] {
        all.push((name.to_owned(), authorization, not_valid()));
    }
    all
}

fn cells_of(site: &Site, row: &Row) -> Vec<Cell> {
    let cell = |credential: &str, authorization: &[String], target: Target, chunk: &str, expected: Expected| Cell {
        path: row.path,
        credential: credential.to_owned(),
        target,
        field: row.field.unwrap_or("nothing"),
        authorization: authorization.to_vec(),
        message: (row.request)(chunk),
        expected,
    };
    let mut cells = Vec::new();
    let targets = targets(site, row);
    for (name, authorization, expected) in refused(site, row) {
        for (target, chunk, _) in &targets {
            cells.push(cell(&name, &authorization, target.clone(), chunk, expected.clone()));
        }
    }
    let good = [format!("Bearer {}", row.capability)];
    for name in ["a good one", "the same once more"] {
        for (target, chunk, expected) in &targets {
            cells.push(cell(name, &good, target.clone(), chunk, expected.clone()));
        }
    }
    if row.field.is_some() {
        let theirs = [format!("Bearer {}", row.foreign)];
        let never = ChunkId::generate(1, &OsEntropy).to_string();
        for (target, chunk) in
            [(Target::Never(never.clone()), &never), (Target::Foreign(row.chunk.clone()), &row.chunk)]
        {
            cells.push(cell("another chunk's", &theirs, target, chunk, not_valid()));
        }
    }
    if let Some((chunk, capability, expected)) = &row.gone {
        let value = [format!("Bearer {capability}")];
        cells.push(cell("one for what is gone", &value, Target::Gone("deleted"), chunk, expected.clone()));
    }
    cells
}

/// All cells of the chunk service.
pub(super) fn cells(site: &Site) -> Vec<Cell> {
    rows(site).iter().flat_map(|row| cells_of(site, row)).collect()
}
