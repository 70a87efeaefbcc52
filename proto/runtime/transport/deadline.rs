//! The caller's own deadline: a call whose caller has given up is given up too.
//!
//! <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>: `grpc-timeout` is up to 8 digits and a unit. A header
//! that is none is ignored, as the client ends the call by itself.

use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Either};
use tokio::time::timeout;
use tonic::Status;
use tonic::codegen::http::HeaderMap;
use tower::Service;

use super::{Request, Response};

const DIGITS_MAX: usize = 8;

/// Ends calls of the service within at their deadline.
#[derive(Debug, Clone)]
pub(super) struct Punctual<S>(pub(super) S);

impl<S> Service<Request> for Punctual<S>
where
    S: Service<Request, Response = Response>,
    S::Error: Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Either<S::Future, BoxFuture<'static, Result<Response, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let Some(within) = caller_waits(request.headers()) else { return Either::Left(self.0.call(request)) };
        let answering = timeout(within, self.0.call(request));
        // Nobody reads this: the client's own clock ends the call for it.
        let late = || Status::deadline_exceeded("the deadline that the caller set is over").into_http();
        Either::Right(answering.map(move |answered| answered.unwrap_or_else(|_elapsed| Ok(late()))).boxed())
    }
}

/// How long the caller waits, if it says so.
fn caller_waits(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > DIGITS_MAX || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let number = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 60 * 60),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_protocol_allows_is_understood_and_nothing_else() {
        let waits = |text: &'static str| {
            caller_waits(&HeaderMap::from_iter([("grpc-timeout".parse().unwrap(), text.parse().unwrap())]))
        };
        for (text, seconds) in
            [("2H", 7_200.0), ("3M", 180.0), ("99999999S", 99_999_999.0), ("1500m", 1.5), ("10u", 1e-5), ("5n", 5e-9)]
        {
            assert_eq!(waits(text), Some(Duration::from_secs_f64(seconds)), "{text}");
        }
        for text in ["", "S", "1", "123456789S", "-1S", "+1S", "1.5S", "1s", "1 S"] {
            assert_eq!(waits(text), None, "{text}");
        }
        assert_eq!(caller_waits(&HeaderMap::new()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_ends_at_its_caller_s_deadline() {
        let service = tower::service_fn(async |_request: Request| -> Result<Response, std::convert::Infallible> {
            std::future::pending().await
        });
        let (mut service, began) = (Punctual(service), tokio::time::Instant::now());
        let mut request = Request::default();
        request.headers_mut().insert("grpc-timeout", "7S".parse().unwrap());
        let answer = service.call(request).await.unwrap();
        assert_eq!(began.elapsed(), Duration::from_secs(7));
        assert_eq!(Status::from_header_map(answer.headers()).unwrap().code(), tonic::Code::DeadlineExceeded);
    }
}
