//! Chunks that a read found missing or damaged are looked at as soon as that happened, so that whoever asks for the
//! cluster's state is told of it before the scrub comes by.

use proto::capability::{ChunkBinding, ReadClaims};

use super::Inspector;
use super::inspector::Verdict;

/// Looks at one suspect after the other, for ever.
pub(crate) async fn visit_suspects(inspector: &Inspector) {
    loop {
        let (place, claims) = inspector.store.suspects().next().await;
        visit(inspector, place, claims).await;
    }
}

/// Looks at a suspect. One that is sound is none any more: should a read find it bad again, that is news.
pub(super) async fn visit(inspector: &Inspector, place: ChunkBinding, claims: ReadClaims) {
    let look = async {
        let finding = inspector.store.verify(place, claims, false).await?;
        inspector.conclude(place, claims, finding, false).await
    };
    let known = match look.await {
        Ok(Verdict::Sound | Verdict::Repaired) => false,
        Ok(Verdict::Gone | Verdict::Bad) => true,
        Err(error) => {
            let error = proto::status::chain(&error);
            tracing::warn!(chunk = %place.chunk, %error, "damage that a read met could not be reported yet");
            false
        }
    };
    if !known {
        inspector.store.suspects().forget(place.chunk);
    }
}
