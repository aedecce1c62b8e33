//! What a dataset does next: a state and an event enter, the next state and one action leave.
//!
//! Pure: no clock, no I/O, no lock. One keeper drives it, so that at most one refresh of a dataset runs: what is asked
//! for meanwhile is remembered and follows.

use super::status::Phase;

/// What of the definition decides the order of things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rules {
    /// `refresh_mode: disabled`: nothing is fetched unless somebody asks.
    pub is_disabled: bool,
    /// There is an interval or a cron expression.
    pub has_schedule: bool,
    /// What was restored from disk is refreshed at once (`refresh_on_startup: always`, or nothing else would do it).
    pub refreshes_restored: bool,
    /// How many times in a row a failed refresh is tried again; none while it heals.
    pub retries_max: u32,
}

/// Where a dataset is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    pub phase: Phase,
    /// Somebody asked while a refresh ran.
    pub is_asked: bool,
    /// Refreshes that failed in a row.
    pub failures: u32,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// The process has begun with the dataset.
    Opened {
        restored: bool,
    },
    /// What was waited for is due.
    Tick,
    /// Somebody wants a refresh.
    Asked,
    Loaded,
    Failed {
        heals: bool,
    },
    /// The spicepod says otherwise when it is refreshed.
    Redefined,
    Stopped,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Refresh,
    Wait(Until),
    /// A refresh runs already: its end says what follows.
    GoOn,
    End,
}

/// What ends a wait; being asked always does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    Asked,
    /// The interval after now, or the next moment of the cron expression.
    Due,
    /// The pause after so many failures in a row.
    Retry {
        failures: u32,
    },
}

impl State {
    pub(super) const FIRST: Self = Self { phase: Phase::Initializing, is_asked: false, failures: 0 };

    fn refreshing(self) -> (Self, Action) {
        (Self { phase: Phase::Refreshing, is_asked: false, ..self }, Action::Refresh)
    }

    /// After a refresh: what was asked for meanwhile, else the wait.
    fn resting(self, phase: Phase, until: Until) -> (Self, Action) {
        match self.is_asked {
            true => self.refreshing(),
            false => (Self { phase, ..self }, Action::Wait(until)),
        }
    }
}

/// The next state and what it asks for.
pub(super) fn next(state: State, event: Event, rules: &Rules) -> (State, Action) {
    let due = if rules.has_schedule && !rules.is_disabled { Until::Due } else { Until::Asked };
    let idle = if rules.is_disabled { Phase::Disabled } else { Phase::Ready };
    let runs = state.phase == Phase::Refreshing;
    match event {
        _ if state.phase == Phase::ShuttingDown => (state, Action::End),
        Event::Stopped => (State { phase: Phase::ShuttingDown, ..state }, Action::End),
        Event::Opened { .. } if rules.is_disabled => (State { phase: idle, ..state }, Action::Wait(due)),
        Event::Opened { restored: true } if !rules.refreshes_restored => {
            (State { phase: idle, ..state }, Action::Wait(due))
        }
        Event::Redefined if runs => (state, Action::GoOn),
        Event::Redefined => (state, Action::Wait(due)),
        Event::Asked if runs => (State { is_asked: true, ..state }, Action::GoOn),
        Event::Opened { .. } | Event::Tick if runs => (state, Action::GoOn),
        Event::Opened { .. } | Event::Tick | Event::Asked => state.refreshing(),
        Event::Loaded => State { failures: 0, ..state }.resting(idle, due),
        Event::Failed { heals } => {
            let failures = state.failures.saturating_add(1);
            let until = match heals && failures <= rules.retries_max {
                true => Until::Retry { failures },
                false => due,
            };
            State { failures, ..state }.resting(Phase::Error, until)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rules() -> impl Strategy<Value = Rules> {
        (any::<bool>(), any::<bool>(), any::<bool>(), 0..4u32).prop_map(
            |(is_disabled, has_schedule, refreshes_restored, retries_max)| Rules {
                is_disabled,
                has_schedule,
                refreshes_restored,
                retries_max,
            },
        )
    }

    /// What may happen beside the end of a refresh.
    fn outside() -> impl Strategy<Value = Event> {
        prop_oneof![4 => Just(Event::Tick), 4 => Just(Event::Asked), 1 => Just(Event::Stopped)]
    }

    fn ending() -> impl Strategy<Value = Event> {
        prop_oneof![Just(Event::Loaded), any::<bool>().prop_map(|heals| Event::Failed { heals })]
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: proptest::test_runner::RngSeed::Fixed(7), ..ProptestConfig::default() })]

        #[test]
        fn refreshes_never_overlap_and_nothing_asked_is_lost(
            rules in rules(),
            restored: bool,
            steps in proptest::collection::vec((outside(), ending(), any::<bool>()), 1..60),
        ) {
            let (mut state, action) = next(State::FIRST, Event::Opened { restored }, &rules);
            let mut runs = action == Action::Refresh;
            let (mut asked, mut failures) = (false, 0);
            for (outside, ending, ends) in steps {
                let event = if runs && ends { ending } else { outside };
                let (after, action) = next(state, event, &rules);
                let was_stopped = state.phase == Phase::ShuttingDown;
                prop_assert_eq!(action == Action::End, was_stopped || event == Event::Stopped);
                if action == Action::End { state = after; runs = false; continue }
                asked |= runs && event == Event::Asked;
                let ended = matches!(event, Event::Loaded | Event::Failed { .. });
                match event {
                    Event::Loaded => failures = 0,
                    Event::Failed { .. } => failures += 1,
                    _ => {}
                }
                match action {
                    Action::Refresh => {
                        prop_assert!(!runs || ended, "a second refresh beside the first");
                        asked = false;
                        runs = true;
                    }
                    Action::Wait(until) => {
                        prop_assert!(!asked, "a wait although somebody asked");
                        if let Until::Retry { failures: told } = until {
                            prop_assert_eq!(told, failures);
                            prop_assert!(told <= rules.retries_max);
                        }
                        prop_assert!(until != Until::Due || (rules.has_schedule && !rules.is_disabled));
                        runs = false;
                    }
                    Action::GoOn => prop_assert!(runs && !ended),
                    Action::End => {}
                }
                prop_assert_eq!(after.phase == Phase::Refreshing, runs);
                state = after;
            }
        }
    }

    const PLAIN: Rules =
        Rules { is_disabled: false, has_schedule: false, refreshes_restored: true, retries_max: u32::MAX };

    #[test]
    fn what_does_not_heal_waits_for_the_schedule() {
        let (state, _) = next(State::FIRST, Event::Opened { restored: false }, &PLAIN);
        let (after, action) = next(state, Event::Failed { heals: false }, &PLAIN);
        assert_eq!((after.phase, action), (Phase::Error, Action::Wait(Until::Asked)));
        let scheduled = Rules { has_schedule: true, ..PLAIN };
        assert_eq!(next(state, Event::Failed { heals: false }, &scheduled).1, Action::Wait(Until::Due));
    }

    #[test]
    fn disabled_refreshes_only_when_asked() {
        let rules = Rules { is_disabled: true, has_schedule: true, ..PLAIN };
        let (state, action) = next(State::FIRST, Event::Opened { restored: false }, &rules);
        assert_eq!((state.phase, action), (Phase::Disabled, Action::Wait(Until::Asked)));
        let (state, action) = next(state, Event::Asked, &rules);
        assert_eq!(action, Action::Refresh);
        assert_eq!(next(state, Event::Loaded, &rules).0.phase, Phase::Disabled);
    }
}
