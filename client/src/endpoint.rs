//! Endpoints in one form, so that equal ones are equal text: `http://host:port` or `https://host:port`, host in lower
//! case, no slash at the end. Without a scheme `http://` is meant.

use tonic::transport::Uri;

use crate::error::Error;

/// The port of the metadata service, where none is given.
const PORT_DEFAULT: u16 = 50051;

/// Brings an endpoint (`host`, `host:port`, `https://host:port/`) into its one form.
pub(crate) fn normalise(text: &str) -> Result<String, Error> {
    let invalid = |problem: &str| Error::Invalid { what: "endpoint", problem: format!("'{text}' {problem}") };
    let trimmed = text.trim();
    let full = if trimmed.contains("://") { trimmed.to_owned() } else { format!("http://{trimmed}") };
    let uri: Uri = full.parse().map_err(|_malformed| invalid("is not of the form http://host:port"))?;
    let scheme = uri.scheme_str().filter(|scheme| matches!(*scheme, "http" | "https"));
    let scheme = scheme.ok_or_else(|| invalid("must begin with http:// or https://"))?;
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(invalid("must not have a path"));
    }
    let authority = uri.authority().ok_or_else(|| invalid("names no host"))?;
    if authority.as_str().contains('@') {
        return Err(invalid("must not hold a user name or password"));
    }
    if authority.host().is_empty() {
        return Err(invalid("names no host"));
    }
    let port = match authority.as_str().strip_prefix(authority.host()) {
        Some("") => PORT_DEFAULT,
        rest => rest
            .and_then(|rest| rest.strip_prefix(':')?.parse().ok())
            .filter(|port| *port > 0)
            .ok_or_else(|| invalid("has no usable port"))?,
    };
    Ok(format!("{scheme}://{}:{port}", authority.host().to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::Category;

    #[test]
    fn every_way_to_write_an_endpoint_has_one_form() {
        for (written, form) in [
            ("http://127.0.0.1:50051", "http://127.0.0.1:50051"),
            ("127.0.0.1", "http://127.0.0.1:50051"),
            (" LocalHost:7/ ", "http://localhost:7"),
            ("HTTP://Example.org", "http://example.org:50051"),
            ("[::1]:80", "http://[::1]:80"),
            ("http://[::1]", "http://[::1]:50051"),
            ("https://Example.org/", "https://example.org:50051"),
            ("HTTPS://[::1]:7", "https://[::1]:7"),
        ] {
            assert_eq!(normalise(written).unwrap(), form, "{written}");
        }
    }

    #[test]
    fn what_is_no_endpoint_is_a_usage_error_that_repeats_it() {
        for bad in [
            "",
            "http://",
            "ftp://a",
            "https://",
            "https://a/b",
            "a/b",
            "a?b",
            "http://u:p@a",
            "a:0",
            "a:65536",
            "a:x",
            "a b",
            "::1",
        ] {
            let error = normalise(bad).unwrap_err();
            assert_eq!(error.category(), Category::Usage, "{bad}");
            assert!(error.to_string().contains(bad), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_a_form_is_its_own_form(text in ".{0,60}") {
            if let Ok(form) = normalise(&text) { prop_assert_eq!(normalise(&form).unwrap(), form); }
        }
    }
}
