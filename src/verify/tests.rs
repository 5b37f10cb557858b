//! The runner in simulated time: sleepers are woken in the order of their deadlines, and nothing
//! waits for real.

use std::collections::BTreeMap;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use time::OffsetDateTime;

use super::*;
use crate::random::SeededRandom;

/// A clock whose time moves to the next deadline whenever everybody waits.
#[derive(Debug, Default)]
struct Simulation {
    state: Mutex<SimulationState>,
}

#[derive(Debug, Default)]
struct SimulationState {
    now: Duration,
    /// By deadline, then by the order in which they fell asleep.
    sleepers: BTreeMap<(Duration, u64), Waker>,
    fallen_asleep: u64,
}

impl Simulation {
    /// Runs `future` to its end in simulated time.
    fn drive<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..10_000_000_u64 {
            if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                return output;
            }
            let waker = {
                let mut state = self.state.lock().unwrap();
                let ((deadline, _), waker) = state.sleepers.pop_first().expect("somebody sleeps");
                state.now = state.now.max(deadline);
                waker
            };
            waker.wake();
        }
        panic!("the simulation does not end");
    }
}

#[async_trait]
impl Clock for Simulation {
    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + self.monotonic()
    }

    fn monotonic(&self) -> Duration {
        self.state.lock().unwrap().now
    }

    async fn sleep(&self, duration: Duration) {
        let deadline = self.monotonic() + duration;
        std::future::poll_fn(|context| {
            let mut state = self.state.lock().unwrap();
            if state.now >= deadline {
                return Poll::Ready(());
            }
            state.fallen_asleep += 1;
            let number = state.fallen_asleep;
            state
                .sleepers
                .insert((deadline, number), context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

#[derive(Default)]
struct Heard(Mutex<Vec<Event>>);

impl Reporter for Heard {
    fn say(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

impl Heard {
    fn lines(&self) -> Vec<String> {
        self.0
            .lock()
            .unwrap()
            .iter()
            .map(|event| match event {
                Event::ProbeObserved {
                    attempt,
                    passed,
                    seen,
                    ..
                } => format!("{attempt} {} {seen}", if *passed { "+" } else { "-" }),
                Event::Note { text } => text.clone(),
                Event::Relayed { text, .. } => format!("> {text}"),
                other => format!("{other:?}"),
            })
            .collect()
    }
}

/// What a scripted target answers at a moment: how long it takes and what it says.
type Script = dyn Fn(Duration) -> (Duration, Result<(), &'static str>) + Send + Sync;

struct Scripted {
    clock: Arc<Simulation>,
    script: Arc<Script>,
    looks: Arc<Mutex<Vec<Duration>>>,
}

impl fmt::Debug for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scripted")
    }
}

#[async_trait]
impl Probe for Scripted {
    fn label(&self) -> &str {
        "shop"
    }

    fn address(&self) -> String {
        "http://shop.test/".to_owned()
    }

    async fn observe(&self, budget: Duration) -> Observation {
        let now = self.clock.monotonic();
        self.looks.lock().unwrap().push(now);
        let (takes, answer) = (self.script)(now);
        self.clock.sleep(takes.min(budget)).await;
        let (look, cause, message) = match answer {
            _ if takes > budget => (Look::TimedOut, "no-answer", "no answer"),
            Ok(()) => (Look::Passed, "ok", "it answered 200 OK"),
            Err("hopeless") => (Look::Hopeless, "client", "hopeless"),
            Err(message) => (Look::Failed, "status", message),
        };
        Observation {
            look,
            cause,
            message: message.to_owned(),
            expected: String::new(),
            seen: String::new(),
            status: None,
            body: Some(format!("{}hunter2{}", "x".repeat(297), "y".repeat(20))),
            extent: Extent::Whole,
        }
    }
}

struct Case {
    gate: Gate,
    clock: Arc<Simulation>,
    heard: Heard,
    scripts: Vec<Arc<Script>>,
    looks: Vec<Arc<Mutex<Vec<Duration>>>>,
}

const SECOND: Duration = Duration::from_secs(1);

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

impl Case {
    fn new(timeout: Duration, retry_interval: Duration, max_retries: u32) -> Self {
        Self {
            gate: Gate {
                name: "deploy/shop".to_owned(),
                targets: Vec::new(),
                timeout,
                retry_interval,
                max_retries,
                verbose: false,
            },
            clock: Arc::default(),
            heard: Heard::default(),
            scripts: Vec::new(),
            looks: Vec::new(),
        }
    }

    fn target(
        mut self,
        consecutive: u32,
        script: impl Fn(Duration) -> (Duration, Result<(), &'static str>) + Send + Sync + 'static,
    ) -> Self {
        self.gate.targets.push(Target {
            consecutive,
            ..Target::new("http://shop.test/")
        });
        self.scripts.push(Arc::new(script));
        self.looks.push(Arc::default());
        self
    }

    fn run(&self) -> GateReport {
        self.run_until(std::future::pending())
    }

    fn run_until(&self, cancel: impl Future<Output = ()>) -> GateReport {
        let probes: Vec<Box<dyn Probe>> = self
            .scripts
            .iter()
            .zip(&self.looks)
            .map(|(script, looks)| {
                Box::new(Scripted {
                    clock: Arc::clone(&self.clock),
                    script: Arc::clone(script),
                    looks: Arc::clone(looks),
                }) as Box<dyn Probe>
            })
            .collect();
        let random = SeededRandom::new(7);
        let world = World {
            clock: &*self.clock,
            random: &random,
            reporter: &self.heard,
            hide: &|text, _| text.replace("hunter2", "***"),
        };
        self.clock.drive(run(&self.gate, &probes, &world, cancel))
    }

    fn looks_at(&self, target: usize) -> Vec<Duration> {
        self.looks[target].lock().unwrap().clone()
    }
}

fn healthy_from(start: Duration) -> impl Fn(Duration) -> (Duration, Result<(), &'static str>) {
    move |now| (ms(1), if now >= start { Ok(()) } else { Err("503") })
}

#[test]
fn a_healthy_target_opens_the_gate_at_once() {
    let case = Case::new(SECOND * 300, SECOND * 10, 30).target(1, healthy_from(Duration::ZERO));
    let report = case.run();
    assert_eq!(report.verdict, GateVerdict::Passed);
    assert_eq!(report.elapsed, ms(1));
    assert_eq!(report.targets[0].attempts, 1);
    assert_eq!(report.targets[0].last, None);
    assert!(report.problem().is_none());
    assert_eq!(case.heard.lines(), ["1 + it answered 200 OK"]);
}

#[test]
fn a_target_that_never_answers_ends_with_its_time() {
    for targets in [1, 3, LOOKS_IN_FLIGHT_MAX, LOOKS_IN_FLIGHT_MAX + 1, 1_000] {
        let timeout = SECOND * 45;
        let mut case = Case::new(timeout, SECOND * 2, 1_000);
        for _ in 0..targets {
            case = case.target(1, |_| (SECOND * 3_600, Ok(())));
        }
        let report = case.run();
        assert_eq!(report.verdict, GateVerdict::TimedOut);
        assert_eq!(report.elapsed, timeout, "{targets} targets");
    }
}

#[test]
fn a_failing_target_ends_with_its_time_or_its_retries() {
    // The defaults: the retries buy exactly the five minutes, so the time decides.
    let case = Case::new(SECOND * 300, SECOND * 10, 30).target(1, |_| (ms(1), Err("503")));
    let report = case.run();
    assert_eq!(report.verdict, GateVerdict::TimedOut);
    assert_eq!(report.elapsed, SECOND * 300);
    let looks = case.looks_at(0);
    assert!((31..50).contains(&looks.len()), "{} looks", looks.len());
    assert!(
        *looks.last().unwrap() > SECOND * 299,
        "a last look near the end"
    );

    // Three retries ten seconds apart are half a minute, not three quick looks.
    let case = Case::new(SECOND * 300, SECOND * 10, 3).target(1, |_| (ms(1), Err("503")));
    let report = case.run();
    assert_eq!(report.verdict, GateVerdict::Failed);
    assert!(
        (SECOND * 30..SECOND * 31).contains(&report.elapsed),
        "{:?}",
        report.elapsed
    );

    // No retries: one look.
    let case = Case::new(SECOND * 300, SECOND * 10, 0).target(1, |_| (ms(1), Err("503")));
    assert_eq!(case.run().targets[0].attempts, 1);

    // What can never work is not tried again.
    let case = Case::new(SECOND * 300, SECOND * 10, 30).target(1, |_| (ms(1), Err("hopeless")));
    let report = case.run();
    assert_eq!(
        (report.verdict, report.targets[0].attempts),
        (GateVerdict::Failed, 1)
    );
}

#[test]
fn a_service_that_comes_up_is_seen_soon_after() {
    for interval in [SECOND / 2, SECOND * 10] {
        for start in (0..60_000).step_by(370).map(ms) {
            let case = Case::new(SECOND * 300, interval, 600).target(1, healthy_from(start));
            let report = case.run();
            assert_eq!(report.verdict, GateVerdict::Passed);
            let delay = report.elapsed - start;
            // Never later than one interval, and never later than the wait so far again: quick
            // for quick starts, calm for slow ones.
            let bound = interval.min(start.max(ms(100)) * 12 / 10) + ms(50);
            assert!(delay <= bound, "up at {start:?}, seen {delay:?} later");
        }
    }
}

#[test]
fn looks_that_see_the_same_are_reported_once_with_their_count() {
    let case = Case::new(SECOND * 60, SECOND, 60).target(1, |now| {
        let answer = match now.as_secs() {
            0..5 => Err("refused"),
            5..9 => Err("503"),
            _ => Ok(()),
        };
        (ms(1), answer)
    });
    let report = case.run();
    assert_eq!(report.verdict, GateVerdict::Passed);
    let lines = case.heard.lines();
    assert_eq!(lines.len(), 4, "{lines:#?}");
    assert_eq!(lines[0], "1 - refused");
    assert!(lines[1].starts_with("  · shop  the same "), "{lines:#?}");
    assert!(lines[2].ends_with("- 503"));
    // The attempt's number says how long it had been so.
    assert!(lines[3].ends_with("+ it answered 200 OK"));
    let last = report.targets[0].last.as_ref().unwrap();
    assert_eq!(last.message, "503");
    assert!(last.repeated > 1);
}

#[test]
fn evidence_hides_a_secret_before_it_is_cut() {
    let case = Case::new(SECOND * 3, SECOND, 1).target(1, |_| (ms(1), Err("503")));
    let report = case.run();
    let body = report.targets[0]
        .last
        .as_ref()
        .unwrap()
        .body
        .clone()
        .unwrap();
    assert_eq!(body, format!("{}***…", "x".repeat(297)));
    let json = serde_json::to_string(&report).unwrap();
    assert!(!json.contains("hun"), "{json}");
}

#[test]
fn verbose_relays_every_answer() {
    let mut case = Case::new(SECOND * 3, SECOND, 1).target(1, healthy_from(Duration::ZERO));
    case.gate.verbose = true;
    case.run();
    assert_eq!(case.heard.lines()[0], format!("> {}***…", "x".repeat(297)));
}

#[test]
fn a_target_that_died_while_another_was_awaited_keeps_the_gate_closed() {
    // A is fine for ten seconds and then dead; B is fine from the thirtieth.
    let dead = |now: Duration| {
        let answer = if now < SECOND * 10 {
            Ok(())
        } else {
            Err("refused")
        };
        (ms(1), answer)
    };
    let case = Case::new(SECOND * 60, SECOND, 600)
        .target(1, dead)
        .target(1, healthy_from(SECOND * 30));
    let report = case.run();
    assert_eq!(report.verdict, GateVerdict::TimedOut);
    assert!(!report.targets[0].passed);
    assert!(report.targets[1].passed);

    // A comes back: the gate opens.
    let case = Case::new(SECOND * 60, SECOND, 600)
        .target(1, |now| {
            let is_up = now < SECOND * 10 || now > SECOND * 40;
            (ms(1), if is_up { Ok(()) } else { Err("refused") })
        })
        .target(1, healthy_from(SECOND * 30));
    let report = case.run();
    assert_eq!(report.verdict, GateVerdict::Passed);
    assert!(report.elapsed > SECOND * 40);
}

#[test]
fn consecutive_passes_are_spread_over_intervals() {
    // Up for one second only. Half-second intervals see it twice, longer ones never do: two quick
    // looks within that second must not count as two passes.
    for (interval, expected) in [
        (ms(500), GateVerdict::Passed),
        (ms(1_500), GateVerdict::TimedOut),
        (ms(10_000), GateVerdict::TimedOut),
    ] {
        let case = Case::new(SECOND * 20, interval, 1_000).target(2, |now| {
            let is_up = (ms(300)..ms(1_300)).contains(&now);
            (ms(1), if is_up { Ok(()) } else { Err("503") })
        });
        assert_eq!(case.run().verdict, expected, "{interval:?}");
    }
}

#[test]
fn the_last_look_does_not_hide_what_was_seen_before() {
    // 503 for a while, then the target hangs; the last look is squeezed by the end.
    let case = Case::new(SECOND * 4, SECOND, 100).target(1, |now| {
        if now < ms(3_400) {
            (ms(1), Err("503"))
        } else {
            (SECOND * 100, Ok(()))
        }
    });
    let report = case.run();
    assert_eq!(report.verdict, GateVerdict::TimedOut);
    assert_eq!(report.elapsed, SECOND * 4);
    assert_eq!(report.targets[0].last.as_ref().unwrap().message, "503");
}

#[test]
fn a_hanging_look_does_not_eat_the_whole_time() {
    // The first look hangs; every later one is answered.
    let case = Case::new(SECOND * 300, SECOND * 10, 30).target(1, |now| {
        if now.is_zero() {
            (SECOND * 3_600, Ok(()))
        } else {
            (ms(1), Ok(()))
        }
    });
    let report = case.run();
    assert_eq!(report.verdict, GateVerdict::Passed);
    assert!(report.elapsed < SECOND * 11, "{:?}", report.elapsed);

    // An answer that takes 35 s is seen in the end.
    let case = Case::new(SECOND * 300, SECOND * 10, 30).target(1, |_| (SECOND * 35, Ok(())));
    assert_eq!(case.run().verdict, GateVerdict::Passed);
}

#[test]
fn a_cancel_ends_the_gate_at_once() {
    let case = Case::new(SECOND * 300, SECOND * 10, 30)
        .target(1, |_| (SECOND * 3_600, Ok(())))
        .target(1, healthy_from(Duration::ZERO));
    let clock = Arc::clone(&case.clock);
    let report = case.run_until(async move { clock.sleep(SECOND * 7).await });
    assert_eq!(report.verdict, GateVerdict::Interrupted);
    assert_eq!(report.elapsed, SECOND * 7);
    assert!(report.targets[1].passed);
    let problem = report.problem().unwrap();
    assert_eq!(
        (problem.code, problem.exit),
        ("verify/interrupted", Exit::Interrupted)
    );
}

#[test]
fn no_more_looks_are_in_flight_than_allowed() {
    let in_flight = Arc::new(Mutex::new((0_usize, 0_usize)));
    let clock: Arc<Simulation> = Arc::default();
    #[derive(Debug)]
    struct Counting(Arc<Simulation>, Arc<Mutex<(usize, usize)>>);
    #[async_trait]
    impl Probe for Counting {
        fn label(&self) -> &str {
            "shop"
        }
        fn address(&self) -> String {
            String::new()
        }
        async fn observe(&self, _: Duration) -> Observation {
            {
                let mut count = self.1.lock().unwrap();
                count.0 += 1;
                count.1 = count.1.max(count.0);
            }
            self.0.sleep(SECOND).await;
            self.1.lock().unwrap().0 -= 1;
            Observation {
                look: Look::Passed,
                cause: "ok",
                message: String::new(),
                expected: String::new(),
                seen: String::new(),
                status: None,
                body: None,
                extent: Extent::Whole,
            }
        }
    }
    let mut case = Case::new(SECOND * 300, SECOND * 60, 30);
    for _ in 0..1_000 {
        case = case.target(1, healthy_from(Duration::ZERO));
    }
    let probes: Vec<Box<dyn Probe>> = (0..1_000)
        .map(|_| Box::new(Counting(Arc::clone(&clock), Arc::clone(&in_flight))) as Box<dyn Probe>)
        .collect();
    let world = World {
        clock: &*clock,
        random: &SeededRandom::new(1),
        reporter: &case.heard,
        hide: &|text, _| text.to_owned(),
    };
    let report = clock.drive(run(&case.gate, &probes, &world, std::future::pending()));
    assert_eq!(report.verdict, GateVerdict::Passed);
    assert_eq!(in_flight.lock().unwrap().1, LOOKS_IN_FLIGHT_MAX);
}

#[test]
fn the_report_has_its_documented_shape() {
    let case = Case::new(SECOND * 3, SECOND, 1).target(1, |_| (ms(250), Err("503")));
    let mut report = case.run();
    report.targets[0].last.as_mut().unwrap().body = Some("down".to_owned());
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["name"], "deploy/shop");
    assert_eq!(json["verdict"], "failed");
    assert!(json["elapsed_ms"].is_u64());
    let target = &json["targets"][0];
    assert_eq!(target["url"], "http://shop.test/");
    assert_eq!(target["passed"], false);
    assert!(target["attempts"].as_u64().unwrap() > 1);
    assert_eq!(target["last"]["message"], "503");
    assert_eq!(target["last"]["took_ms"], 250);
    assert_eq!(target["last"]["body"], "down");
    let problem = report.problem().unwrap();
    assert_eq!(problem.exit, Exit::GateClosed);
    assert_eq!(
        problem.message,
        "gate `deploy/shop` stayed closed: 1 of 1 targets did not pass"
    );
}
