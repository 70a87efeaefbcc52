use std::future::{Future as _, poll_fn};
use std::process::Command;
use std::task::Poll;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::time::advance;

use super::*;
use crate::runtime::SystemClock;
use crate::runtime::transport::TransportLimits;

const CHILD: &str = "MINI_TECTONIC_TEST_WITHOUT_DESCRIPTORS";
const NAME: &str =
    "runtime::transport::accept::tests::a_process_without_descriptors_pauses_and_goes_on_when_it_has_some";

/// The accept loop once ran as fast as it could while a process was out of descriptors: accept failed at once, for as
/// long as a client waited, and a core was gone. The limit holds for a whole process, so a child lowers its own.
#[test]
fn a_process_without_descriptors_pauses_and_goes_on_when_it_has_some() {
    if std::env::var_os(CHILD).is_some() {
        // Time moves only when the test says so.
        let paused = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        return paused.block_on(run_out_of_descriptors());
    }
    let child =
        Command::new(std::env::current_exe().unwrap()).args(["--exact", NAME]).env(CHILD, "1").output().unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&child.stderr));
}

async fn run_out_of_descriptors() {
    let gate = Gate::new(TransportLimits::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tls = Tls::off(Arc::new(SystemClock));
    let mut acceptor = Acceptor::new(listener, Arc::clone(&gate), tls, CancellationToken::new());
    let mut connection = Box::pin(acceptor.next());
    let _waits = std::net::TcpStream::connect(address).unwrap();
    let sound = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(0), ..sound }).unwrap();
    for _millisecond in 0..10_000 {
        let poll_once = poll_fn(|cx| Poll::Ready(connection.as_mut().poll(cx)));
        assert!(poll_once.await.is_pending());
        advance(Duration::from_millis(1)).await;
    }
    let tries = gate.counts().accept_errors;
    setrlimit(Resource::Nofile, sound).unwrap();
    // 5 ms, 10 ms and so on up to 640 ms are eight pauses in 1.3 s; then there is one a second. Without a pause there
    // would be thousands.
    assert_eq!(tries, 17);
    advance(LONGEST_PAUSE).await;
    drop(connection.await);
    let counts = gate.counts();
    assert_eq!((counts.accepted, counts.accept_errors), (1, 17));
}

#[tokio::test(start_paused = true)]
async fn what_happens_often_is_logged_once_in_a_while_with_its_number() {
    let (mut rarely, mut written) = (Rarely::default(), Vec::new());
    for _ in 0..100 {
        rarely.log(|times| written.push(times));
    }
    advance(LOG_INTERVAL).await;
    rarely.log(|times| written.push(times));
    assert_eq!(written, [1, 100]);
}
