//! The life of a resource: made, read, compared, changed, removed.

use std::time::Duration;

use serde_json::Value;
use tonic::Code;

use super::launch::{Channel, Launched};
use super::process::{origin, registered};
use super::{Book, Conformance, Sample, ensure, said};
use crate::iac::ia_c_provider_required_client::IaCProviderRequiredClient;
use crate::iac::resource_driver_client::ResourceDriverClient;
use crate::iac::{self, ResourceOutput, ResourceRef, ResourceSpec};
use crate::{Error, ErrorClass};

pub(super) async fn scenarios(conformance: &Conformance, book: &mut Book) {
    for sample in &conformance.samples {
        let mut stage = None;
        let initialised = book.check(
            format!("{}: the provider takes its config", sample.kind),
            async {
                stage = Some(Stage::set(conformance, sample).await?);
                Ok(())
            },
        );
        if initialised.await
            && let Some(mut stage) = stage
        {
            stage.play(book).await;
        }
    }
}

type Driver = ResourceDriverClient<Channel>;

/// A running, initialised plugin and the resource that plays on it.
pub(super) struct Stage<'a> {
    pub(super) conformance: &'a Conformance,
    pub(super) sample: &'a Sample,
    pub(super) channel: Channel,
    launched: Launched,
    driver: Driver,
}

impl<'a> Stage<'a> {
    async fn set(conformance: &'a Conformance, sample: &'a Sample) -> Result<Self, String> {
        let launched = Launched::start(conformance).await?;
        let channel = launched.connect().await?;
        let mut provider = IaCProviderRequiredClient::with_origin(channel.clone(), origin());
        let request = iac::InitializeRequest {
            config_json: conformance.config_json(),
        };
        provider
            .initialize(request)
            .await
            .map_err(said("Initialize"))?;
        let driver =
            Driver::with_origin(channel.clone(), origin()).max_decoding_message_size(usize::MAX);
        Ok(Self {
            conformance,
            sample,
            channel,
            launched,
            driver,
        })
    }

    pub(super) fn spec(&self, config: &Value) -> ResourceSpec {
        ResourceSpec {
            name: self.sample.name.clone(),
            r#type: self.sample.kind.clone(),
            config_json: config.to_string().into_bytes(),
            ..ResourceSpec::default()
        }
    }

    pub(super) fn reference(&self, provider_id: &str) -> ResourceRef {
        ResourceRef {
            name: self.sample.name.clone(),
            r#type: self.sample.kind.clone(),
            provider_id: provider_id.to_owned(),
        }
    }

    async fn create(&self) -> Result<ResourceOutput, tonic::Status> {
        let request = iac::ResourceCreateRequest {
            resource_type: self.sample.kind.clone(),
            spec: Some(self.spec(&self.sample.config)),
        };
        let answer = self.driver.clone().create(request).await?.into_inner();
        answer
            .output
            .ok_or_else(|| tonic::Status::internal("the answer has no output"))
    }

    async fn read(&self, provider_id: &str) -> Result<ResourceOutput, tonic::Status> {
        let request = iac::ResourceReadRequest {
            resource_type: self.sample.kind.clone(),
            r#ref: Some(self.reference(provider_id)),
        };
        let answer = self.driver.clone().read(request).await?.into_inner();
        answer
            .output
            .ok_or_else(|| tonic::Status::internal("the answer has no output"))
    }

    async fn delete(&self, provider_id: &str) -> Result<(), tonic::Status> {
        let request = iac::ResourceDeleteRequest {
            resource_type: self.sample.kind.clone(),
            r#ref: Some(self.reference(provider_id)),
        };
        self.driver.clone().delete(request).await.map(drop)
    }

    /// As a host does it: against what is recorded, where a placeholder stands for each secret.
    async fn differs(&self, config: &Value, recorded: &ResourceOutput) -> Result<bool, String> {
        let mut outputs = crate::noun::map_from(&recorded.outputs_json, "outputs_json")
            .map_err(|error| error.to_string())?;
        for (key, _) in recorded.sensitive.iter().filter(|(_, is)| **is) {
            if let Some(value) = outputs.get_mut(key) {
                *value = format!("secret_ref://{}_{key}", recorded.name).into();
            }
        }
        let current = ResourceOutput {
            outputs_json: crate::noun::map_to(&outputs),
            sensitive: Default::default(),
            status: String::new(),
            ..recorded.clone()
        };
        let request = iac::ResourceDiffRequest {
            resource_type: self.sample.kind.clone(),
            desired: Some(self.spec(config)),
            current: Some(current),
        };
        let answer = self
            .driver
            .clone()
            .diff(request)
            .await
            .map_err(said("Diff"))?
            .into_inner();
        Ok(answer.result.is_some_and(|diff| {
            diff.needs_update
                || diff.needs_replace
                || diff.changes.iter().any(|change| change.force_new)
        }))
    }

    async fn play(&mut self, book: &mut Book) {
        let kind = &self.sample.kind;
        let name = |what: &str| format!("{kind}: {what}");
        let mut made = ResourceOutput::default();
        let created = book.check(name("create answers what it made"), async {
            made = self.create().await.map_err(said("Create"))?;
            self.is_itself(&made)?;
            ensure(!made.provider_id.is_empty(), || {
                "it has no provider id".to_owned()
            })?;
            secrets_are_text(&made)
        });
        if !created.await {
            return;
        }
        let made = &made;
        let id = made.provider_id.as_str();
        if self.sample.names_are_unique {
            book.check(name("a second create says that it exists"), async {
                match self.create().await {
                    Ok(_) => Err("it was made twice".to_owned()),
                    Err(status) => ensure(
                        Error::from_status(&status).class() == ErrorClass::AlreadyExists,
                        || said("Create")(status),
                    ),
                }
            })
            .await;
        }
        book.check(name("read finds it by id, and by name alone"), async {
            for id in [id, ""] {
                let live = self.read(id).await.map_err(said("Read"))?;
                self.is_itself(&live)?;
                ensure(live.provider_id == made.provider_id, || {
                    format!("its id is now {:?}", live.provider_id)
                })?;
            }
            Ok(())
        })
        .await;
        book.check(
            name("outputs marked secret are among the sensitive keys"),
            async {
                let request = iac::SensitiveKeysRequest {
                    resource_type: kind.clone(),
                };
                let keys = self
                    .driver
                    .clone()
                    .sensitive_keys(request)
                    .await
                    .map_err(said("SensitiveKeys"))?;
                let keys = keys.into_inner().keys;
                let missing = made
                    .sensitive
                    .iter()
                    .find(|(key, is)| **is && !keys.contains(key));
                ensure(missing.is_none(), || format!("{missing:?} is not"))
            },
        )
        .await;
        book.check(name("diff of what was just made is empty"), async {
            ensure(!self.differs(&self.sample.config, made).await?, || {
                "it wants a change".to_owned()
            })
        })
        .await;
        book.check(name("a live resource is healthy"), self.healthy(id))
            .await;
        book.check(name("sixteen reads and diffs at once"), async {
            let stage = &*self;
            let calls = (0..16).map(|turn| async move {
                if turn % 2 == 0 {
                    stage.read(id).await.map(drop).map_err(said("Read"))
                } else {
                    stage.differs(&stage.sample.config, made).await.map(drop)
                }
            });
            futures_util::future::join_all(calls)
                .await
                .into_iter()
                .collect()
        })
        .await;
        book.check(name("a call given up leaves the plugin as it was"), async {
            for _ in 0..8 {
                drop(tokio::time::timeout(Duration::from_micros(200), self.read(id)).await);
            }
            self.read(id)
                .await
                .map(drop)
                .map_err(said("Read afterwards"))
        })
        .await;
        super::ability::scenarios(self, made, book).await;
        if let Some(changed) = &self.sample.changed {
            book.check(
                name("a change shows in diff, is made by update, and is then gone"),
                async {
                    ensure(self.differs(changed, made).await?, || {
                        "diff does not see it".to_owned()
                    })?;
                    let request = iac::ResourceUpdateRequest {
                        resource_type: kind.clone(),
                        r#ref: Some(self.reference(id)),
                        spec: Some(self.spec(changed)),
                    };
                    let answer = self
                        .driver
                        .clone()
                        .update(request)
                        .await
                        .map_err(said("Update"))?;
                    let output = answer
                        .into_inner()
                        .output
                        .ok_or("the answer has no output")?;
                    self.is_itself(&output)?;
                    ensure(!self.differs(changed, &output).await?, || {
                        "it still wants a change".to_owned()
                    })
                },
            )
            .await;
        }
        book.check(
            name("what a driver cannot do is Unimplemented"),
            self.optional_calls(id),
        )
        .await;
        book.check(
            name("delete removes it, and read says not found in words"),
            async {
                self.delete(id).await.map_err(said("Delete"))?;
                match self.read(id).await {
                    Ok(_) => Err("it can still be read".to_owned()),
                    Err(status) => ensure(Error::from_status(&status).is_not_found(), || {
                        said("Read")(status)
                    }),
                }
            },
        )
        .await;
        book.check(
            name("delete of what is gone succeeds, or says not found"),
            async {
                match self.delete(id).await {
                    Err(status) if !Error::from_status(&status).is_not_found() => {
                        Err(said("Delete")(status))
                    }
                    _ => Ok(()),
                }
            },
        )
        .await;
        book.check(
            name("destroy removes it, in one call with others"),
            self.destroy(),
        )
        .await;
        book.check(
            name("a type nobody knows fails, and not as a missing resource"),
            async {
                let request = iac::ResourceReadRequest {
                    resource_type: "conformance.nothing".to_owned(),
                    r#ref: Some(self.reference(id)),
                };
                match self.driver.clone().read(request).await {
                    Ok(_) => Err("it was read".to_owned()),
                    Err(status) => ensure(!Error::from_status(&status).is_not_found(), || {
                        said("Read")(status)
                    }),
                }
            },
        )
        .await;
        book.check(name("a config that is no JSON object is refused"), async {
            for config in [&b"[1]"[..], b"{", b"\xff\xfe"] {
                let mut spec = self.spec(&Value::Null);
                spec.config_json = config.to_vec();
                let request = iac::ResourceCreateRequest {
                    resource_type: kind.clone(),
                    spec: Some(spec),
                };
                let answer = self.driver.clone().create(request).await;
                ensure(answer.is_err(), || {
                    format!("{:?} was taken", String::from_utf8_lossy(config))
                })?;
            }
            Ok(())
        })
        .await;
        book.check(name("a request of three megabytes arrives"), async {
            let large = serde_json::json!({ "conformance": "x".repeat(3 << 20) });
            let request = iac::ResourceDiffRequest {
                resource_type: kind.clone(),
                desired: Some(self.spec(&large)),
                current: Some(made.clone()),
            };
            // Whether the driver likes the config is its own affair.
            if let Err(status) = self.driver.clone().diff(request).await {
                let lost = matches!(
                    status.code(),
                    Code::ResourceExhausted | Code::Unavailable | Code::Internal
                );
                ensure(!lost, || said("Diff")(status))?;
            }
            registered(&self.channel).await.map(drop)
        })
        .await;
        book.check(name("it is still the same process"), async {
            let ended = self
                .launched
                .child
                .try_wait()
                .map_err(|error| error.to_string())?;
            ensure(ended.is_none(), || format!("it ended: {ended:?}"))
        })
        .await;
    }

    fn is_itself(&self, output: &ResourceOutput) -> Result<(), String> {
        // Empty is filled in by the host.
        for (is, should) in [
            (&output.name, &self.sample.name),
            (&output.r#type, &self.sample.kind),
        ] {
            ensure(is.is_empty() || is == should, || {
                format!("asked about {should:?}, it answers {is:?}")
            })?;
        }
        Ok(())
    }

    async fn healthy(&self, id: &str) -> Result<(), String> {
        let request = iac::ResourceHealthCheckRequest {
            resource_type: self.sample.kind.clone(),
            r#ref: Some(self.reference(id)),
        };
        let answer = self
            .driver
            .clone()
            .health_check(request)
            .await
            .map_err(said("HealthCheck"))?;
        let result = answer
            .into_inner()
            .result
            .ok_or("the answer has no result")?;
        ensure(result.healthy, || result.message)
    }

    async fn destroy(&self) -> Result<(), String> {
        let made = self.create().await.map_err(said("Create"))?;
        let request = iac::DestroyRequest {
            refs: vec![self.reference(&made.provider_id)],
        };
        let result = IaCProviderRequiredClient::with_origin(self.channel.clone(), origin())
            .destroy(request)
            .await
            .map_err(said("Destroy"))?
            .into_inner()
            .result
            .ok_or("the answer has no result")?;
        ensure(
            result.destroyed == [self.sample.name.clone()] && result.errors.is_empty(),
            || format!("{result:?}"),
        )?;
        match self.read(&made.provider_id).await {
            Ok(_) => Err("it can still be read".to_owned()),
            Err(status) => ensure(Error::from_status(&status).is_not_found(), || {
                said("Read")(status)
            }),
        }
    }

    async fn optional_calls(&self, id: &str) -> Result<(), String> {
        let request = iac::TroubleshootRequest {
            resource_type: self.sample.kind.clone(),
            r#ref: Some(self.reference(id)),
            failure_msg: "it does not answer".to_owned(),
        };
        match self.driver.clone().troubleshoot(request).await {
            Err(status) if status.code() != Code::Unimplemented => {
                Err(said("Troubleshoot")(status))
            }
            _ => Ok(()),
        }
    }
}

fn secrets_are_text(output: &ResourceOutput) -> Result<(), String> {
    let outputs = crate::noun::map_from(&output.outputs_json, "outputs_json")
        .map_err(|error| error.to_string())?;
    for (key, _) in output.sensitive.iter().filter(|(_, is)| **is) {
        if let Some(value) = outputs.get(key) {
            ensure(value.is_string(), || {
                format!("the sensitive output {key} is not text")
            })?;
        }
    }
    Ok(())
}
