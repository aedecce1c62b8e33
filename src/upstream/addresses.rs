//! The addresses behind one name and what is known of each: failures enter, an order of preference leaves. Pure: time
//! is handed in.
//!
//! An address that failed is ejected, for twice as long each time, as long as there are others. When its time is over
//! it is on trial: one call at a time goes there until one succeeds.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

/// How long an address is left alone after its first failure.
const EJECTION_FIRST: Duration = Duration::from_secs(1);
/// And at most.
const EJECTION_MAX: Duration = Duration::from_secs(60);

/// Where one connection goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Address {
    Tcp(SocketAddr),
    /// The endpoint's own socket of this machine.
    Socket,
}

impl Address {
    /// Where TCP goes.
    pub fn tcp(self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(address),
            Self::Socket => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Socket => f.write_str("the socket"),
        }
    }
}

/// What an address may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Well,
    /// It failed when it was last used; it may show now that it is well.
    Trial,
    /// Not to be used before then, where another can be.
    Ejected(Instant),
}

/// The addresses of one endpoint.
#[derive(Debug, Default)]
pub(super) struct Book(Vec<Entry>);

#[derive(Debug, Clone, Copy)]
struct Entry {
    address: Address,
    /// Since its last success.
    failures: u32,
    until: Option<Instant>,
}

impl Book {
    /// These are the addresses now; what is known of those that stay is kept.
    pub fn set(&mut self, addresses: &[Address]) {
        let known = std::mem::take(&mut self.0);
        self.0 = addresses
            .iter()
            .map(|address| {
                let entry = known.iter().find(|entry| entry.address == *address).copied();
                entry.unwrap_or(Entry { address: *address, failures: 0, until: None })
            })
            .collect();
    }

    /// A failure at `address`. Those that come while it is ejected belong to the same trouble.
    pub fn fail(&mut self, address: Address, now: Instant) {
        let Some(entry) = self.entry(address) else { return };
        if entry.until.is_some_and(|until| now < until) {
            return;
        }
        let pause = EJECTION_FIRST.saturating_mul(1 << entry.failures.min(16)).min(EJECTION_MAX);
        entry.failures = entry.failures.saturating_add(1);
        entry.until = Some(now + pause);
    }

    /// An answer from `address`.
    pub fn succeed(&mut self, address: Address) {
        if let Some(entry) = self.entry(address) {
            (entry.failures, entry.until) = (0, None);
        }
    }

    /// An address that is not known is well: nothing is said against it.
    pub fn standing(&self, address: Address, now: Instant) -> Standing {
        let entry = self.0.iter().find(|entry| entry.address == address);
        entry.map_or(Standing::Well, |entry| entry.standing(now))
    }

    /// Whether there is an address against which nothing is said.
    pub fn has_well(&self) -> bool {
        self.0.iter().any(|entry| entry.failures == 0)
    }

    /// All addresses, the best first: well ones in the order of the name server, those on trial, and ejected ones by
    /// the end of their time.
    pub fn order(&self, now: Instant) -> Vec<Address> {
        let mut entries = self.0.clone();
        entries.sort_by_key(|entry| match entry.standing(now) {
            Standing::Well => (0, None),
            Standing::Trial => (1, None),
            Standing::Ejected(until) => (2, Some(until)),
        });
        entries.into_iter().map(|entry| entry.address).collect()
    }

    fn entry(&mut self, address: Address) -> Option<&mut Entry> {
        self.0.iter_mut().find(|entry| entry.address == address)
    }
}

impl Entry {
    fn standing(&self, now: Instant) -> Standing {
        match self.until {
            None => Standing::Well,
            Some(until) if now < until => Standing::Ejected(until),
            Some(_) => Standing::Trial,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(last: u8) -> Address {
        Address::Tcp(SocketAddr::from(([127, 0, 0, last], 1)))
    }

    fn book(count: u8) -> Book {
        let mut book = Book::default();
        book.set(&(1..=count).map(address).collect::<Vec<_>>());
        book
    }

    #[test]
    fn an_ejection_doubles_up_to_a_minute_and_a_success_ends_it() {
        let mut now = Instant::now();
        let mut book = book(2);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            book.fail(address(1), now);
            // A burst of failures is one.
            book.fail(address(1), now);
            let Standing::Ejected(until) = book.standing(address(1), now) else { panic!("not ejected") };
            pauses.push((until - now).as_secs());
            now = until;
            assert_eq!(book.standing(address(1), now), Standing::Trial);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(book.order(now), [address(2), address(1)]);
        book.succeed(address(1));
        assert_eq!(book.order(now), [address(1), address(2)]);
    }

    #[test]
    fn a_new_answer_of_the_name_server_keeps_what_is_known() {
        let now = Instant::now();
        let mut book = book(2);
        book.fail(address(2), now);
        book.set(&[address(3), address(2)]);
        assert_eq!(book.order(now), [address(3), address(2)]);
        assert_eq!(book.standing(address(1), now), Standing::Well);
        book.fail(address(3), now);
        assert!(!book.has_well());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn every_address_has_its_place_and_none_is_left_alone_for_more_than_a_minute(
            count in 1u8..6, steps in prop::collection::vec((0u64..5000, 1u8..7, any::<bool>()), 0..80),
        ) {
            let mut now = Instant::now();
            let mut book = book(count);
            for (wait, which, is_failure) in steps {
                now += Duration::from_millis(wait);
                match is_failure {
                    true => book.fail(address(which), now),
                    false => book.succeed(address(which)),
                }
                let order = book.order(now);
                prop_assert_eq!(order.len(), usize::from(count));
                let standings: Vec<_> = order.iter().map(|address| book.standing(*address, now)).collect();
                let rank = |standing: &Standing| match standing {
                    Standing::Well => 0,
                    Standing::Trial => 1,
                    Standing::Ejected(until) => {
                        assert!(*until - now <= EJECTION_MAX);
                        2
                    }
                };
                prop_assert!(standings.is_sorted_by_key(rank));
                prop_assert_eq!(book.has_well(), standings.contains(&Standing::Well));
            }
        }
    }
}
