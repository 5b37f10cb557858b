//! A run that is killed at any moment, and what the next run makes of it.

use std::time::{Duration, Instant};

use super::service::{SERVICE, answer, wait_for};
use super::*;

/// Not a test of its own: the process that the next test kills.
#[tokio::test]
async fn victim() {
    let (Ok(folder), Ok(program)) = (
        std::env::var("LOCAL_VICTIM"),
        std::env::var("LOCAL_PROGRAM"),
    ) else {
        return;
    };
    let masker = Masker::default();
    let config = serde_json::json!({"root": "./root"});
    let provider = open(&config, Path::new(&folder), "dev", &masker, &[]).unwrap();
    let spec = victim_spec(&folder, &program);
    let driver = driver(&provider, &spec);
    let Ok(made) = driver.create(&operation(), &spec).await else {
        return;
    };
    if std::env::var_os("LOCAL_CHURN").is_some() {
        let prior = record(&spec, made);
        drop(driver.update(&operation(), &prior, &spec).await);
        drop(driver.delete(&operation(), &prior).await);
    }
}

/// How many copies of the test service run for this lab.
fn services(lab: &Lab) -> usize {
    lab.processes()
        .iter()
        .filter(|(_, line)| line.contains(" serve "))
        .count()
}

fn victim_spec(folder: &str, program: &str) -> Spec {
    let config = map(serde_json::json!({"command": [program, "serve", folder]}));
    Spec {
        address: Address::new("web"),
        kind: Kind::new(SERVICE),
        public_config: public_map(&config, &Keyring::new(&[7; 32])),
        config,
        dependencies: BTreeSet::new(),
    }
}

#[tokio::test]
async fn kill_nine_at_any_moment_of_a_create_leaves_one_service_or_none() {
    let (adopted, finished) = kill_at(false, |round| match round {
        // From before anything is made (where a step takes microseconds) to after all is up.
        0..20 => Some(Duration::from_micros(u64::from(round) * 250)),
        20..30 => Some(Duration::from_millis(u64::from(round - 19) * 20)),
        _ => None,
    })
    .await;
    assert!(
        adopted > 0 && finished > 0,
        "{adopted} adopted, {finished} finished by the next run"
    );
}

#[tokio::test]
async fn kill_nine_at_any_moment_of_an_update_or_delete_leaves_one_service_or_none() {
    let (adopted, finished) = kill_at(true, |round| {
        (round < 16).then(|| Duration::from_millis(300 + u64::from(round) * 40))
    })
    .await;
    assert_eq!(adopted + finished, 16);
}

/// Kills the victim at each moment, lets the next run repair, checks that exactly one service runs
/// and that destroying leaves nothing. Answers how many services were found whole, and how many
/// had to be finished.
async fn kill_at(churn: bool, moment: impl Fn(u32) -> Option<Duration>) -> (u32, u32) {
    let program = test_service().to_string_lossy().into_owned();
    let mut adopted = 0;
    let mut finished = 0;
    for round in 0.. {
        let Some(moment) = moment(round) else { break };
        let lab = Lab::new();
        let folder = lab.path().to_string_lossy().into_owned();
        let mut victim = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "local::kill::victim", "--test-threads=1"])
            .env("LOCAL_VICTIM", &folder)
            .env("LOCAL_PROGRAM", &program)
            .envs(churn.then_some(("LOCAL_CHURN", "1")))
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let moved = wait_moment(&lab, moment);
        victim.kill().unwrap();
        victim.wait().unwrap();
        let spec = victim_spec(&folder, &program);
        let provider = lab.provider();
        let driver = driver(&provider, &spec);
        let prior = match driver.read(&by_name(&spec)).await {
            Err(error) => {
                assert_eq!(error.class, ErrorClass::NotFound, "round {round}: {error}");
                finished += 1;
                record(&spec, driver.create(&operation(), &spec).await.unwrap())
            }
            Ok(found) => {
                let mut prior = record(&spec, found);
                let diff = driver.diff(&prior, &spec).await.unwrap();
                if diff.needs_update {
                    finished += 1;
                    prior = record(
                        &spec,
                        driver.update(&operation(), &prior, &spec).await.unwrap(),
                    );
                } else {
                    adopted += 1;
                }
                prior
            }
        };
        answer(&public(&prior.outputs, "live_url"));
        // The victim's supervisor may only now be giving way; it never runs a second service.
        assert!(
            services(&lab) <= 1,
            "round {round}, {moved:?}: {:?}",
            lab.processes()
        );
        wait_for("one supervisor", || {
            (lab.supervisors().len() == 1).then_some(())
        });
        assert_eq!(services(&lab), 1, "round {round}: {:?}", lab.processes());
        driver.delete(&operation(), &prior).await.unwrap();
        lab.expect_nothing_left();
    }
    (adopted, finished)
}

/// Waits until the victim has begun, then `moment` longer.
fn wait_moment(lab: &Lab, moment: Duration) -> Duration {
    let started = Instant::now();
    while !lab.root().exists() && started.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_micros(200));
    }
    std::thread::sleep(moment);
    started.elapsed()
}
