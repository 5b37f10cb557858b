//! The rows of the contract for plugins (S), held by a plugin on our SDK that can do everything, and
//! the same scenarios against the Go plugin.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::json;
use tidegate_plugin::conformance::{Channel, Conformance, Outcome, Sample};
use tidegate_plugin::iac;
use tidegate_plugin::iac::ia_c_provider_required_client::IaCProviderRequiredClient;
use tidegate_plugin::iac::resource_driver_client::ResourceDriverClient;

use super::*;

fn kit(executable: &Path, folder: &Path) -> Conformance {
    let mut kit = Conformance::of(executable)
        .config(json!({"root": folder.join("root"), "region": "here1"}))
        // The Go plugin is shy otherwise; ours does not look.
        .environment("FILES_EARLY", "1")
        .bootstraps(json!({"bucket": "states"}))
        .job("true")
        .state_backend("files", json!({"folder": folder.join("state")}));
    for kind in ["infra.vpc", "infra.database"] {
        let config = |size: &str| json!({"size": size, "region": "here1"});
        kit = kit.sample(Sample::new(kind, "sample", config("s")).changed(config("l")));
    }
    kit
}

/// How every scenario ended with our plugin; run once.
fn outcome() -> &'static Outcome {
    static OUTCOME: OnceLock<Outcome> = OnceLock::new();
    OUTCOME.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        kit(go::own_executable(), folder.path()).run()
    })
}

#[track_caller]
fn holds(scenario: &str) {
    let mut passed = outcome().passed();
    assert!(passed.any(|name| name == scenario), "{}", outcome());
}

#[test]
fn the_plugin_on_our_sdk_conforms_in_everything_it_can_do() {
    assert_eq!(outcome().failures().count(), 0, "{}", outcome());
    // Every service of the contract was asked for.
    let of_vpc = outcome()
        .passed()
        .filter(|name| name.starts_with("infra.vpc: "))
        .count();
    assert!(of_vpc > 30, "{}", outcome());
}

#[test]
fn the_go_plugin_passes_the_same_scenarios() {
    let Some(executable) = go::executable() else {
        harness::skip_without("go");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let go = kit(executable, folder.path()).run();
    assert_eq!(go.failures().count(), 0, "{go}");
    let names: Vec<&str> = go.passed().collect();
    for scenario in outcome().passed() {
        // The one service that only ours has.
        let is_ours_alone = scenario.ends_with("needs have keys of their own");
        assert!(
            is_ours_alone || names.contains(&scenario),
            "{scenario}\n{go}"
        );
    }
}

/// A plugin that breaks the contract fails, by the name of what it broke.
#[test]
fn the_kit_finds_what_is_broken() {
    let folder = tempfile::tempdir().unwrap();
    let bad = install(
        folder.path(),
        "bad",
        Path::new(env!("CARGO_BIN_EXE_hostile-plugin")),
    );
    let mode = json!({"serve": true, "ignores_shutdown": true});
    fs::write(bad.join("mode.json"), mode.to_string()).unwrap();
    let found = Conformance::of(bad.join("bad"))
        .environment(
            "PLUGIN_UNIX_SOCKET_DIR",
            folder.path().display().to_string(),
        )
        .run();
    let failures: Vec<&str> = found.failures().map(|(name, _)| name).collect();
    for broken in [
        "without the cookie it says why and ends with 1",
        "health is SERVING for the service plugin",
        "asked for mutual TLS it answers its host and nobody else, or does not start",
        "the registry lists what is served, sorted, and nothing else",
        "Shutdown ends it within 2 s with code 0 and without its socket",
    ] {
        assert!(failures.contains(&broken), "{broken}\n{found}");
    }
}

#[test]
fn s1_one_line_on_stdout_and_nothing_else_ever() {
    holds("it prints one handshake line and listens where it says");
    // This one also reads what is left on the raw stdout.
    holds("Shutdown ends it within 2 s with code 0 and without its socket");
}

#[test]
fn s2_the_socket_is_there_before_the_line() {
    // Connected to at once, with nothing between.
    holds("it prints one handshake line and listens where it says");
}

fn provider(channel: &Channel, origin: &'static str) -> IaCProviderRequiredClient<Channel> {
    IaCProviderRequiredClient::with_origin(channel.clone(), http::Uri::from_static(origin))
}

#[tokio::test]
async fn s3_any_authority_and_any_number_of_connections() {
    let folder = tempfile::tempdir().unwrap();
    let launched = kit(go::own_executable(), folder.path())
        .launch()
        .await
        .unwrap();
    for origin in [
        "http://unused",
        "http://localhost",
        "http://[::]:50051",
        "http://unused",
    ] {
        let channel = launched.connect().await.unwrap();
        let name = provider(&channel, origin)
            .name(iac::NameRequest {})
            .await
            .unwrap();
        assert_eq!(name.into_inner().name, "files", "{origin}");
    }
}

#[test]
fn s4_shutdown_ends_it_in_time() {
    holds("Shutdown ends it within 2 s with code 0 and without its socket");
}

#[test]
fn s5_an_interrupt_does_not_end_it() {
    holds("an interrupt does not end it");
}

/// Everything the SDK itself may print: without a cookie, with a certificate that is none, and
/// while it serves and a caller panics it.
#[test]
fn s6_nothing_on_stderr_crashes_the_parser_of_a_go_host() {
    let folder = tempfile::tempdir().unwrap();
    let mut said = String::new();
    for (name, value) in [
        ("NOBODY", "1"),
        ("PLUGIN_CLIENT_CERT", "no certificate"),
        ("PLUGIN_UNIX_SOCKET_DIR", "/nowhere/at/all"),
        ("TMPDIR", folder.path().to_str().unwrap()),
    ] {
        let mut command = Command::new(go::own_executable());
        command
            .env_clear()
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if name != "NOBODY" {
            command.env("WORKFLOW_PLUGIN", "workflow-external-plugin-v1");
        }
        let mut child = command.env(name, value).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        child.kill().unwrap();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut said)
            .unwrap();
        child.wait().unwrap();
    }
    assert!(said.lines().count() >= 3, "{said}");
    for line in said.lines() {
        let Ok(serde_json::Value::Object(object)) = serde_json::from_str(line) else {
            continue;
        };
        for key in ["@message", "@level", "@timestamp"] {
            assert!(
                object.get(key).is_none_or(|value| value.is_string()),
                "{line}"
            );
        }
    }
}

#[test]
fn s7_health_is_serving() {
    holds("health is SERVING for the service plugin");
}

#[test]
fn s8_the_registry_lists_what_is_served_and_nothing_else() {
    holds("the registry lists what is served, sorted, and nothing else");
}

#[test]
fn s9_the_manifest_names_a_plain_version() {
    holds("the manifest names a plain version");
}

#[test]
fn s10_capabilities_come_before_initialize_and_say_v2() {
    holds("capabilities come before initialize, and say v2");
}

/// More than any host sends today.
#[tokio::test]
async fn s11_a_request_of_twelve_megabytes_arrives() {
    let folder = tempfile::tempdir().unwrap();
    let launched = kit(go::own_executable(), folder.path())
        .launch()
        .await
        .unwrap();
    let channel = launched.connect().await.unwrap();
    let config = json!({"root": folder.path()}).to_string();
    provider(&channel, "http://unused")
        .initialize(iac::InitializeRequest {
            config_json: config.into_bytes(),
        })
        .await
        .unwrap();
    let large = json!({"size": "x".repeat(12 << 20)}).to_string();
    let diff = ResourceDriverClient::with_origin(channel, http::Uri::from_static("http://unused"))
        .max_decoding_message_size(usize::MAX)
        .diff(iac::ResourceDiffRequest {
            resource_type: "infra.vpc".to_owned(),
            desired: Some(iac::ResourceSpec {
                name: "web".to_owned(),
                config_json: large.into_bytes(),
                ..iac::ResourceSpec::default()
            }),
            current: Some(iac::ResourceOutput::default()),
        })
        .await
        .unwrap()
        .into_inner();
    let change = &diff.result.unwrap().changes[0];
    assert_eq!(
        (change.path.as_str(), change.new_json.len() >> 20),
        ("size", 12)
    );
}

#[test]
fn s12_not_found_is_said_in_words_and_in_its_code() {
    holds("infra.vpc: delete removes it, and read says not found in words");
}

#[test]
fn s13_what_a_driver_cannot_do_is_unimplemented() {
    holds("infra.vpc: what a driver cannot do is Unimplemented");
}

#[test]
fn s14_streams_may_be_opened_and_left_alone() {
    holds("broker and stdio streams may be opened and left alone");
}

#[test]
fn s15_asked_for_mutual_tls_it_never_serves_plaintext() {
    holds("asked for mutual TLS it answers its host and nobody else, or does not start");
}

#[test]
fn s16_state_calls_before_configure_are_refused() {
    holds("state files: before Configure every call is FailedPrecondition");
}

#[tokio::test]
async fn a_child_of_its_host_takes_the_kernels_word_and_not_a_certificate() {
    use tidegate_plugin::{convention, tls};

    let certificate = tls::Identity::generate().unwrap().pem();
    let launch = async |host: u32| {
        Conformance::of(go::own_executable())
            .environment("PLUGIN_CLIENT_CERT", &certificate)
            .environment(convention::HOST, host.to_string())
            .launch()
            .await
            .unwrap()
    };
    let own = std::process::id();
    let launched = launch(own).await;
    assert_eq!(launched.field(6), convention::BY_PROCESS);
    let channel = launched.connect().await.unwrap();
    let mut client =
        IaCProviderRequiredClient::with_origin(channel, "http://unused".parse().unwrap());
    client.name(iac::NameRequest {}).await.unwrap();
    // Whose child it is not, it does not believe: mutual TLS, and no plaintext.
    let launched = launch(own + 1).await;
    assert!(launched.field(6).len() > 100, "{}", launched.line);
    if let Ok(channel) = launched.connect().await {
        let origin = "http://unused".parse().unwrap();
        let mut client = IaCProviderRequiredClient::with_origin(channel, origin);
        assert!(client.name(iac::NameRequest {}).await.is_err());
    }
}
