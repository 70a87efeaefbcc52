//! Chunks that a read found missing or damaged are looked at as soon as that happened, so that whoever asks for the
//! cluster's state is told of it before the scrub comes by.

use super::Inspector;
use crate::error::ChunkError;

/// Looks at one suspect after the other, for ever.
pub(crate) async fn visit_suspects(inspector: &Inspector) {
    loop {
        let (place, claims) = inspector.store.suspects().next().await;
        let visit = async {
            let finding = inspector.store.verify(place, claims, false).await?;
            inspector.conclude(place, claims, finding, false).await?;
            Ok::<_, ChunkError>(())
        };
        if let Err(error) = visit.await {
            let error = proto::status::chain(&error);
            tracing::warn!(chunk = %place.chunk, %error, "damage that a read met could not be reported yet");
            inspector.store.suspects().forget(place.chunk);
        }
    }
}
