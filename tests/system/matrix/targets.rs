//! What each kind of field may name, and what a caller whom the method is for is told about it.

use proto::entropy::OsEntropy;
use proto::ids::{BlobId, ChunkId, NodeId};
use tonic::Code;

use super::methods::Values;
use super::site::{DELETED_TENANT, Household, Site, key_id};
use super::spec::{Expected, Target, about, absent, bad_field, denied, refusal};
use super::tokens::Who;

/// Texts that are no UUID in its one form.
pub(super) fn no_uuids(id: &str) -> Vec<String> {
    let simple = id.replace('-', "");
    let long = "a".repeat(10_240);
    let others =
        [id.to_uppercase(), format!("{{{id}}}"), format!("urn:uuid:{id}"), format!("{id}\0"), format!(" {id}")];
    let mut all: Vec<_> = others.into_iter().collect();
    all.extend(["", "x", "../../etc/passwd", &simple, &long].map(str::to_owned));
    all
}

const NOT_A_UUID: &str = "must be a UUID in canonical lower case, such as 0190b5c4-7e5a-7cc3-98c4-dc0c0c07398f";
const NOT_A_TENANT: &str = "must be 3 to 63 of a-z, 0-9 and '-', beginning with a letter";

pub(super) fn bad(field: &'static str, problem: &str) -> Expected {
    bad_field(field, format!("{field} {problem}"))
}

/// Kinds of objects that a field may name, its value for each, and what a caller whom the method is for is told.
pub(super) type Targets = Vec<(Target, String, Expected)>;

pub(super) fn malformed(field: &'static str, texts: impl IntoIterator<Item = String>, problem: &str) -> Targets {
    texts.into_iter().map(|text| (Target::Malformed(text.clone()), text, bad(field, problem))).collect()
}

fn never(id: String, expected: impl FnOnce(&str) -> Expected) -> (Target, String, Expected) {
    let expected = expected(&id);
    (Target::Never(id.clone()), id, expected)
}

fn foreign(id: &str, expected: impl FnOnce(&str) -> Expected) -> (Target, String, Expected) {
    (Target::Foreign(id.to_owned()), id.to_owned(), expected(id))
}

fn gone(what: &'static str, id: &str, expected: Expected) -> (Target, String, Expected) {
    (Target::Gone(what), id.to_owned(), expected)
}

/// All that another tenant has under an id of its own.
fn ids_of(house: &Household) -> Vec<String> {
    let upload = house.upload.upload.as_ref().unwrap().blob_id.clone();
    let blobs = [house.blob.blob_id.clone(), house.deleted.to_string(), house.doomed.to_string()];
    let uploads = [upload, house.empty_upload.clone(), house.doomed_upload.clone(), house.aborted_upload.clone()];
    blobs.into_iter().chain(uploads).collect()
}

fn some_id() -> String {
    BlobId::generate(1, &OsEntropy).to_string()
}

fn objects(site: &Site, who: &Who, kind: &'static str) -> Targets {
    let strangers = if *who == Who::Stranger { &site.owner } else { &site.stranger };
    let mut targets = vec![never(some_id(), |id| absent(kind, id))];
    targets.extend(ids_of(strangers).iter().map(|id| foreign(id, |id| absent(kind, id))));
    targets
}

pub(super) fn blobs(site: &Site, who: &Who, own: &Values, restores: bool) -> Targets {
    let mut targets = objects(site, who, "blob");
    if *who == Who::Stranger {
        return targets;
    }
    let house = &site.owner;
    targets.push((Target::Own, own.blob.clone(), Expected::Answered));
    let deleted = house.deleted.to_string();
    let after = if restores { Expected::Answered } else { absent("blob", &deleted) };
    targets.push(gone("deleted", &deleted, after));
    for (what, id) in [("an aborted upload", &house.aborted_upload), ("an open upload", &house.empty_upload)] {
        targets.push(gone(what, id, absent("blob", id)));
    }
    targets.extend(malformed("blob_id", no_uuids(&deleted), NOT_A_UUID));
    targets
}

pub(super) fn uploads(site: &Site, who: &Who, own: &Values, ended: bool, committed: bool) -> Targets {
    let mut targets = objects(site, who, "upload");
    if *who == Who::Stranger {
        return targets;
    }
    let house = &site.owner;
    let over = "the upload is over: it was aborted, or its lease ran out; start a new one";
    let over = Expected::Refused(refusal(Code::FailedPrecondition, "UPLOAD_EXPIRED", over));
    let is_blob = Expected::Refused(refusal(Code::FailedPrecondition, "UPLOAD_COMMITTED", "the upload is committed"));
    let deleted = house.deleted.to_string();
    targets.push((Target::Own, own.blob.clone(), Expected::Answered));
    targets.push(gone("aborted", &house.aborted_upload, if ended { Expected::Answered } else { over }));
    targets.push(gone("committed", &house.blob.blob_id, if committed { Expected::Answered } else { is_blob }));
    targets.push(gone("a deleted blob", &deleted, absent("upload", &deleted)));
    targets.extend(malformed("blob_id", no_uuids(&deleted), NOT_A_UUID));
    targets
}

fn no_tenants() -> Vec<String> {
    let long = "a".repeat(64);
    ["ab", "Owner", "1st", "own_er", "owner\0", " owner", "../owner", &long].map(str::to_owned).to_vec()
}

pub(super) fn tenants(site: &Site, who: &Who, own: &Values) -> Targets {
    let absent_one = |id: &str| absent("tenant", id);
    // As long as the id of the tenant that is not the caller's.
    let nobody = if *who == Who::Stranger { "nobod" } else { "nobodies" };
    let mut targets = vec![never(nobody.to_owned(), absent_one)];
    match who {
        Who::Stranger => targets.push(foreign(site.owner.id.as_str(), absent_one)),
        Who::Admin => targets.push((Target::Own, own.tenant.clone(), Expected::Answered)),
        Who::Owner(_) | Who::Join | Who::Node | Who::OtherNode => {
            targets.push(foreign(site.stranger.id.as_str(), absent_one));
            targets.push((Target::Own, String::new(), Expected::Answered));
            targets.push((Target::Own, site.owner.id.to_string(), Expected::Answered));
        }
    }
    targets.push(gone("deleted", DELETED_TENANT, absent_one(DELETED_TENANT)));
    targets.extend(malformed("tenant_id", no_tenants(), NOT_A_TENANT));
    if *who == Who::Admin {
        targets.extend(malformed("tenant_id", [String::new()], NOT_A_TENANT));
    }
    targets
}

pub(super) fn new_tenants(site: &Site) -> Targets {
    let taken = refusal(Code::AlreadyExists, "TENANT_ALREADY_EXISTS", "the tenant is registered already");
    let id = site.owner.id.as_str();
    let mut targets = vec![
        (Target::Own, id.to_owned(), about(taken, "tenant", id)),
        never("newcomer".to_owned(), |_id| Expected::Answered),
        gone("deleted", DELETED_TENANT, Expected::Answered),
    ];
    targets.extend(malformed("tenant_id", no_tenants(), NOT_A_TENANT));
    targets
}

pub(super) fn key_ids(site: &Site, who: &Who, own: &Values) -> Targets {
    let absent_one = |_id: &str| bad("key_id", "names no token of this tenant");
    let strangers = if *who == Who::Stranger { &site.owner } else { &site.stranger };
    let (revoked, join) = (key_id(&site.keys.revoked), key_id(&site.keys.join));
    let mut targets = vec![
        never("0123456789abcdef".to_owned(), absent_one),
        foreign(&key_id(&strangers.token), absent_one),
        foreign(&key_id(&site.keys.admin), absent_one),
        foreign(&join, absent_one),
        gone("revoked", &revoked, absent_one(&revoked)),
    ];
    if *who != Who::Stranger {
        targets.push((Target::Own, own.key_id.clone(), Expected::Answered));
    }
    let texts = ["", "x", "0123456789ABCDEF", "../../etc/passwd", "0123456789abcdef0"].map(str::to_owned);
    targets.extend(malformed("key_id", texts, "must be 16 hex digits in lower case"));
    targets
}

pub(super) fn nodes(site: &Site, who: &Who, joins: bool) -> Targets {
    let used = "another node used this join token first, and it is good for one; make a new one";
    let another = |_id: &str| denied(if joins { used } else { "it is another node's" });
    let (mut own, mut other) = (site.node.to_string(), site.other_node.to_string());
    if matches!(who, Who::OtherNode | Who::Join) {
        std::mem::swap(&mut own, &mut other);
    }
    let mut targets = vec![never(NodeId::generate(1, &OsEntropy).to_string(), another), foreign(&other, another)];
    targets.extend(malformed("node_id", no_uuids(&own), NOT_A_UUID));
    // Of the other node no heartbeat is ever sent: it would be given chunks.
    if *who != Who::OtherNode {
        targets.push((Target::Own, own, Expected::Answered));
    }
    targets
}

/// A chunk of another node is one that nothing refers to.
pub(super) fn chunks(site: &Site, who: &Who, field: &'static str) -> Targets {
    let own = site.owner.location.chunk_id.clone();
    let mut targets = vec![never(ChunkId::generate(1, &OsEntropy).to_string(), |_id| Expected::Answered)];
    if *who == Who::OtherNode {
        targets.push(foreign(&own, |_id| Expected::Answered));
    } else {
        targets.push((Target::Own, own.clone(), Expected::Answered));
    }
    targets.extend(malformed(field, no_uuids(&own), NOT_A_UUID));
    targets
}

pub(super) fn page_tokens(site: &Site, path: &str, who: &Who) -> Targets {
    let (blobs, tenants) = (&site.owner.page_token, &site.tenants_page_token);
    let (own, other) = match path.rsplit('/').next().unwrap() {
        "ListBlobs" if *who == Who::Stranger => (&site.stranger.page_token, blobs),
        "ListBlobs" => (blobs, &site.stranger.page_token),
        _of_the_operator => (tenants, blobs),
    };
    let has_own = path.ends_with("ListTenants") || path.ends_with("ListBlobs");
    let mut wrong =
        vec![other.clone(), format!("{own}A"), format!("{own}="), own[1..].to_owned(), own[..own.len() - 1].to_owned()];
    wrong.extend(["x", "AAAA"].map(str::to_owned));
    wrong.push(if path.ends_with("ListTenants") { blobs.clone() } else { tenants.clone() });
    let mut targets = malformed("page_token", wrong, "is not the next_page_token of this listing");
    let own = if has_own { own.clone() } else { String::new() };
    targets.push((Target::Own, own, Expected::Answered));
    targets
}
