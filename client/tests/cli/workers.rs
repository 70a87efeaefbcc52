//! Background work, shown and steered.

use crate::KIB;
use crate::common::{User, user_with_services, wait_until};

fn worker(user: &User, name: &str) -> Option<serde_json::Value> {
    let listed = user.line("workers --json").ok();
    let mut workers =
        listed.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a line is an object"));
    workers.find(|worker| worker["name"] == name)
}

#[test]
fn workers_are_listed_paused_resumed_paced_and_run() {
    let (user, _serve) = user_with_services();
    wait_until("the node tells of its scrub", || worker(&user, "scrub"));
    for name in ["uploads", "garbage", "orphans"] {
        assert_eq!(worker(&user, name).unwrap()["paused"], false, "{name}");
    }
    assert_eq!(user.line("workers pause garbage").ok(), "garbage is paused, at its own pace");
    assert_eq!(worker(&user, "garbage").unwrap()["paused"], true);
    let ran = user.line("workers run garbage").ok();
    assert!(ran.ends_with("looked at, 0 changed, 0 left alone, 0 failed"), "{ran}");
    assert_eq!(user.line("workers pace garbage 7").ok(), "garbage is paused, at most 7 a second");
    assert_eq!(worker(&user, "garbage").unwrap()["pace_per_second"], 7);
    assert_eq!(user.line("workers resume garbage").ok(), "garbage runs by itself, at most 7 a second");
    assert_eq!(user.line("workers pace garbage 0").ok(), "garbage runs by itself, without a bound on its pace");
    assert_eq!(user.line("workers run orphans --json").json()["failed"], 0);
    user.line("workers pace scrub 10MiB").ok();
    wait_until("the node scrubs at that pace", || {
        worker(&user, "scrub").filter(|worker| worker["pace_per_second"] == 10 * 1024 * KIB)
    });
}

#[test]
fn workers_and_paces_that_cannot_be_end_with_2() {
    let (user, _serve) = user_with_services();
    for line in ["workers pause gc", "workers resume gc", "workers pace gc 1", "workers run gc"] {
        user.line(line).failed(2, &["gc", "uploads, garbage, orphans, scrub"]);
    }
    for line in ["workers pause", "workers sweep", "workers pace scrub", "workers pace scrub lots", "workers run"] {
        user.line(line).failed(2, &[]);
    }
}
