//! Mistakes that metadata services are known to make, each of which a test can put into this one (I3, I6, I9, I11, I15, I19).
//!
//! A step at which one could be made asks `seeded!`, which is the constant `false` outside tests. In tests the mistake is
//! the one that the process was started with; the suites know nothing of it, so each can be held against any mistake, in
//! a process of its own. `testing` has the list, and the test that some suite turns red for each.

#[cfg(not(test))]
macro_rules! seeded {
    ($mistake:ident) => {
        false
    };
}
#[cfg(test)]
macro_rules! seeded {
    ($mistake:ident) => {
        $crate::mistakes::testing::is_made($crate::mistakes::testing::Mistake::$mistake)
    };
}

#[cfg(test)]
pub(crate) mod testing;
