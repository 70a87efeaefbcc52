//! The wire: protos in, protos out. The only part, besides `metadata_link`, that knows tonic and generated code.

mod batches;
pub(crate) mod convert;
mod credential;
mod handlers;
mod list_stream;
mod read_stream;

pub(crate) use handlers::Handlers;
