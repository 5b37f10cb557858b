//! State backends: records kept, listed and locked.

use std::collections::BTreeMap;

use serde_json::Value;
use tonic::Code;

use super::launch::{Channel, Launched};
use super::process::origin;
use super::{Book, Conformance, ensure, said};
use crate::iac::ia_c_state_backend_client::IaCStateBackendClient;
use crate::{StateRecord, iac};

pub(super) async fn scenarios(conformance: &Conformance, book: &mut Book) {
    for (backend, settings) in &conformance.backends {
        let name = |what: &str| format!("state {backend}: {what}");
        book.check(
            name("before Configure every call is FailedPrecondition"),
            async {
                let (_launched, mut client) = client(conformance).await?;
                let names = client
                    .list_backend_names(iac::ListBackendNamesRequest {})
                    .await;
                let names = names
                    .map_err(said("ListBackendNames"))?
                    .into_inner()
                    .backend_names;
                ensure(names.contains(backend), || format!("it serves {names:?}"))?;
                let answer = client
                    .get_state(iac::GetStateRequest {
                        resource_id: "web".to_owned(),
                    })
                    .await;
                ensure(
                    answer.is_err_and(|status| status.code() == Code::FailedPrecondition),
                    || "GetState was not refused".to_owned(),
                )?;
                let answer = client
                    .lock(iac::LockRequest {
                        resource_id: "web".to_owned(),
                    })
                    .await;
                ensure(
                    answer.is_err_and(|status| status.code() == Code::FailedPrecondition),
                    || "Lock was not refused".to_owned(),
                )?;
                let wrong = iac::ConfigureRequest {
                    backend_name: "nobody".to_owned(),
                    config_json: Vec::new(),
                };
                let answer = client.configure(wrong).await;
                ensure(
                    answer.is_err_and(|status| status.code() == Code::InvalidArgument),
                    || "another name was not refused".to_owned(),
                )
            },
        )
        .await;
        book.check(
            name("records are kept byte for byte, listed and removed"),
            records(conformance, backend, settings),
        )
        .await;
        book.check(
            name("a lock is held by one, and given back once"),
            locks(conformance, backend, settings),
        )
        .await;
    }
}

type Client = IaCStateBackendClient<Channel>;

async fn client(conformance: &Conformance) -> Result<(Launched, Client), String> {
    let launched = Launched::start(conformance).await?;
    let client = Client::with_origin(launched.connect().await?, origin())
        .max_decoding_message_size(usize::MAX);
    Ok((launched, client))
}

async fn configured(
    conformance: &Conformance,
    backend: &str,
    settings: &Value,
) -> Result<(Launched, Client), String> {
    let (launched, mut client) = client(conformance).await?;
    let request = iac::ConfigureRequest {
        backend_name: backend.to_owned(),
        config_json: settings.to_string().into_bytes(),
    };
    client.configure(request).await.map_err(said("Configure"))?;
    Ok((launched, client))
}

async fn get(client: &mut Client, id: &str) -> Result<Option<StateRecord>, String> {
    let request = iac::GetStateRequest {
        resource_id: id.to_owned(),
    };
    let answer = client
        .get_state(request)
        .await
        .map_err(said("GetState"))?
        .into_inner();
    ensure(answer.exists == answer.state.is_some(), || {
        "exists and state do not agree".to_owned()
    })?;
    Ok(answer.state)
}

async fn records(conformance: &Conformance, backend: &str, settings: &Value) -> Result<(), String> {
    let (_launched, mut client) = configured(conformance, backend, settings).await?;
    ensure(get(&mut client, "nothing").await?.is_none(), || {
        "it has what nobody saved".to_owned()
    })?;
    // Order and spacing are not JSON's, and still the record's.
    let outputs = format!(r#"{{"b": 1,"a":"{}"}}"#, "x".repeat(1 << 20));
    let record = StateRecord {
        resource_id: "shop/web".to_owned(),
        resource_type: "infra.web".to_owned(),
        provider: "conformance".to_owned(),
        status: "active".to_owned(),
        outputs_json: outputs.into_bytes().into(),
        config_json: "null".into(),
        dependencies: vec!["db".to_owned()],
        created_at: "2026-01-02T03:04:05Z".to_owned(),
        ..StateRecord::default()
    };
    let other = StateRecord {
        resource_id: "db".to_owned(),
        status: "error".to_owned(),
        ..StateRecord::default()
    };
    for record in [&record, &other, &record] {
        let request = iac::SaveStateRequest {
            state: Some(record.clone()),
        };
        client
            .save_state(request)
            .await
            .map_err(said("SaveState"))?;
    }
    ensure(
        get(&mut client, "shop/web").await?.as_ref() == Some(&record),
        || "what is read was not saved".to_owned(),
    )?;
    for (filter, expected) in [
        (None, 2),
        (Some(("status", "active")), 1),
        (Some(("status", "gone")), 0),
    ] {
        let filter: BTreeMap<String, String> = filter
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let request = iac::ListStatesRequest {
            filter: filter.clone(),
        };
        let found = client
            .list_states(request)
            .await
            .map_err(said("ListStates"))?
            .into_inner()
            .states
            .len();
        ensure(found == expected, || {
            format!("{filter:?} lists {found} of {expected}")
        })?;
    }
    for id in ["shop/web", "db"] {
        let request = iac::DeleteStateRequest {
            resource_id: id.to_owned(),
        };
        client
            .delete_state(request)
            .await
            .map_err(said("DeleteState"))?;
        ensure(get(&mut client, id).await?.is_none(), || {
            format!("{id} is still there")
        })?;
    }
    Ok(())
}

async fn locks(conformance: &Conformance, backend: &str, settings: &Value) -> Result<(), String> {
    let (_launched, mut client) = configured(conformance, backend, settings).await?;
    let lock = || iac::LockRequest {
        resource_id: "web".to_owned(),
    };
    let unlock = || iac::UnlockRequest {
        resource_id: "web".to_owned(),
    };
    client.lock(lock()).await.map_err(said("Lock"))?;
    ensure(client.lock(lock()).await.is_err(), || {
        "it was locked twice".to_owned()
    })?;
    client.unlock(unlock()).await.map_err(said("Unlock"))?;
    ensure(client.unlock(unlock()).await.is_err(), || {
        "it was given back twice".to_owned()
    })?;
    client.lock(lock()).await.map_err(said("Lock again"))?;
    client
        .unlock(unlock())
        .await
        .map(drop)
        .map_err(said("Unlock again"))
}
