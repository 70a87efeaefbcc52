//! The wire: protos in, protos out. The only part, besides `metadata_link`, that knows tonic and generated code.

mod convert;
mod credential;
mod handlers;
mod read_stream;

pub(crate) use handlers::Handlers;
