//! The capability of a call, from its metadata: there before a byte of the body is taken.

use tonic::metadata::MetadataMap;

use crate::error::ChunkError;

/// The text behind `authorization: Bearer`; `None` when there is no such header.
///
/// # Errors
/// [`ChunkError::CapabilityInvalid`] for two headers, or another scheme.
pub(crate) fn bearer(metadata: &MetadataMap) -> Result<Option<&str>, ChunkError> {
    let mut values = metadata.get_all("authorization").iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return if metadata.contains_key("authorization") { Err(ChunkError::CapabilityInvalid) } else { Ok(None) };
    };
    let text = value.to_str().map_err(|_not_text| ChunkError::CapabilityInvalid)?;
    match text.split_once(' ') {
        Some((scheme, capability)) if scheme.eq_ignore_ascii_case("bearer") => Ok(Some(capability)),
        Some(_) | None => Err(ChunkError::CapabilityInvalid),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(values: &[&'static str]) -> MetadataMap {
        let mut map = MetadataMap::new();
        for value in values {
            map.append("authorization", value.parse().unwrap());
        }
        map
    }

    #[test]
    fn exactly_one_bearer_credential_is_taken() {
        assert!(matches!(bearer(&with(&[])), Ok(None)));
        assert!(matches!(bearer(&with(&["Bearer abc"])), Ok(Some("abc"))));
        assert!(matches!(bearer(&with(&["bearer abc"])), Ok(Some("abc"))));
        // Blanks around it were once taken off: several texts were one credential.
        assert!(matches!(bearer(&with(&["Bearer  abc "])), Ok(Some(" abc "))));
        for bad in [&["abc"][..], &["Basic abc"], &["Bearer"], &["Bearer abc", "Bearer abc"], &[""]] {
            assert!(matches!(bearer(&with(bad)), Err(ChunkError::CapabilityInvalid)), "{bad:?}");
        }
    }
}
