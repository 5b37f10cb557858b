//! Everything it can do beyond single resources.

use super::*;

#[async_trait]
impl Enumerate for Files {
    async fn all(&self, kind: &str) -> Result<Vec<Found>> {
        let found = all(&self.root)?;
        let wanted = found.iter().filter(|resource| resource.kind == kind);
        Ok(wanted
            .map(|resource| Found {
                name: resource.name.clone(),
                kind: resource.kind.clone(),
                observed: observed(resource),
            })
            .collect())
    }

    async fn by_tag(&self, tag: &str) -> Result<Vec<Recorded>> {
        let found = all(&self.root)?;
        let tagged = found
            .iter()
            .filter(|resource| word(&resource.config, "tag") == tag);
        Ok(tagged.map(recorded).collect())
    }
}

#[async_trait]
impl DetectDrift for Files {
    async fn drift(
        &self,
        prior: &[Recorded],
        desired: &BTreeMap<String, Spec>,
    ) -> Result<Vec<Drift>> {
        let size = |config: &Map| config.get("size").cloned().unwrap_or_default();
        let only = |size: Value| Map::from_iter([("size".to_owned(), size)]);
        let verdict = |prior: &Recorded| {
            let mut drift = Drift {
                name: prior.name.clone(),
                kind: prior.kind.clone(),
                verdict: DriftVerdict::InSync,
                expected: Map::new(),
                actual: Map::new(),
            };
            match (load(&self.root, prior), desired.get(&prior.name)) {
                (Err(_), _) => drift.verdict = DriftVerdict::Ghost,
                (Ok(found), Some(spec)) if size(&found.config) != size(&spec.config) => {
                    drift.verdict = DriftVerdict::Changed;
                    drift.expected = only(size(&spec.config));
                    drift.actual = only(size(&found.config));
                }
                (Ok(_), _) => {}
            }
            drift
        };
        Ok(prior.iter().map(verdict).collect())
    }
}

#[async_trait]
impl RevokeCredential for Files {
    async fn revoke(&self, source: &str, credential: &str) -> Result<()> {
        if credential == "gone" {
            return Err(Error::not_found("gone"));
        }
        if self.root.join("revoke.fails").exists() {
            return Err(Error::other("not today"));
        }
        // What a store holds at this moment, for the test of the order.
        let watched = fs::read_to_string(self.root.join("watch")).unwrap_or_default();
        let held = fs::read_to_string(watched).unwrap_or_default();
        let line = format!("{source} {credential} {held}");
        let path_of_log = self.root.join("revoked.txt");
        let before = fs::read_to_string(&path_of_log).unwrap_or_default();
        fs::write(path_of_log, format!("{before}{}\n", line.trim_end()))?;
        let gone = all(&self.root)?
            .into_iter()
            .find(|resource| resource.kind == CREDENTIAL && resource.id == credential);
        if let Some(gone) = gone {
            fs::remove_file(path(&self.root, &gone.kind, &gone.name))?;
        }
        Ok(())
    }
}

#[async_trait]
impl ListRegions for Files {
    async fn regions(&self, _environment: &str) -> Result<Vec<Region>> {
        let region = |name: &str, label: &str| Region {
            name: name.to_owned(),
            label: label.to_owned(),
        };
        Ok(vec![
            region("here1", "Here"),
            region("  ", ""),
            region("there1", ""),
        ])
    }
}

#[async_trait]
impl Ownership for Files {
    async fn owner(&self, prior: &Recorded) -> Result<Owner> {
        load(&self.root, prior).map(|found| owner(&found))
    }

    async fn set_owner(&self, prior: &Recorded, owner: &str) -> Result<()> {
        let mut found = load(&self.root, prior)?;
        found.owner = owner.to_owned();
        store(&self.root, &found)
    }

    async fn owned(&self, whose: &str, kind: &str) -> Result<Vec<Owned>> {
        let found = all(&self.root)?;
        let theirs = found.iter().filter(|resource| {
            resource.owner == whose && (kind.is_empty() || resource.kind == kind)
        });
        Ok(theirs
            .map(|resource| Owned {
                resource: recorded(resource),
                owner: owner(resource),
            })
            .collect())
    }
}

fn owner(resource: &Resource) -> Owner {
    Owner {
        owner: resource.owner.clone(),
        source: "file".to_owned(),
    }
}

#[async_trait]
impl Finalize for Files {
    async fn finish(&self, plan: &str) -> Result<Vec<Unfinished>> {
        let mut told = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.root.join("finalized.txt"))?;
        writeln!(told, "{plan}")?;
        match plan {
            "plan-with-failures" => Ok(vec![Unfinished {
                resource: "db".to_owned(),
                action: "deferred_update".to_owned(),
                error: "the firewall is closed".to_owned(),
            }]),
            "plan-that-breaks" => Err(Error::forbidden("no firewall for you")),
            _ => Ok(Vec::new()),
        }
    }
}

#[async_trait]
impl Validate for Files {
    async fn remarks(&self, plan: &Plan) -> Result<Vec<Remark>> {
        let absurd = plan
            .actions
            .iter()
            .filter(|action| word(&action.desired.config, "size") == "absurd");
        let mut remarks: Vec<Remark> = absurd
            .map(|action| Remark {
                severity: Severity::Error,
                resource: action.desired.name.clone(),
                field: "size".to_owned(),
                message: "nobody has that size".to_owned(),
            })
            .collect();
        remarks.push(Remark {
            severity: Severity::Warning,
            resource: String::new(),
            field: String::new(),
            message: "files are not for production".to_owned(),
        });
        Ok(remarks)
    }
}

fn log(lines: impl IntoIterator<Item = String>) -> LogStream {
    let pieces: Vec<Result<LogChunk>> = lines
        .into_iter()
        .map(|line| {
            Ok(LogChunk {
                data: line.into_bytes().into(),
                source: "historic".to_owned(),
            })
        })
        .collect();
    Box::pin(futures_util::stream::iter(pieces))
}

#[async_trait]
impl ReadLogs for Files {
    async fn logs(&self, request: LogRequest) -> Result<LogStream> {
        let kind = match request.log {
            LogKind::Build => "BUILD",
            LogKind::Deploy => "DEPLOY",
            LogKind::Run => "RUN",
            LogKind::RunRestarted => "RUN_RESTARTED",
        };
        Ok(log([
            format!(
                "log of {} (LOG_CAPTURE_TYPE_{kind})\n",
                request.resource.name
            ),
            format!(
                "tail={} follow={}\n",
                request.tail_lines,
                request.follow_seconds.is_some()
            ),
        ]))
    }
}

/// A map as Go prints it.
fn printed(map: &BTreeMap<String, String>) -> String {
    let items: Vec<String> = map
        .iter()
        .map(|(key, value)| format!("{key}:{value}"))
        .collect();
    format!("map[{}]", items.join(" "))
}

#[async_trait]
impl RunJobs for Files {
    async fn run(&self, job: iac::JobSpec) -> Result<iac::JobHandle> {
        if job.name.is_empty() {
            return Ok(iac::JobHandle::default());
        }
        let line = format!(
            "ran {} with {} and {}",
            job.run_command,
            printed(&job.env_vars),
            printed(&job.env_vars_secret)
        );
        Ok(iac::JobHandle {
            id: "job-1".to_owned(),
            name: job.name,
            provider: "files".to_owned(),
            metadata: BTreeMap::from([("log".to_owned(), line)]),
        })
    }

    async fn status(&self, job: &iac::JobHandle) -> Result<JobStatus> {
        let line = job.metadata.get("log");
        let line = line.ok_or_else(|| Error::not_found(format!("job {}", job.id)))?;
        Ok(if line.starts_with("ran false") {
            JobStatus {
                state: JobState::Failed,
                exit_code: 3,
                message: "it failed".to_owned(),
            }
        } else {
            JobStatus {
                state: JobState::Succeeded,
                exit_code: 0,
                message: "done".to_owned(),
            }
        })
    }

    async fn logs(&self, job: iac::JobHandle) -> Result<LogStream> {
        Ok(log(job.metadata.get("log").map(|line| format!("{line}\n"))))
    }
}

#[async_trait]
impl RepairMigration for Files {
    /// The confirmation was checked before we are asked.
    async fn repair(
        &self,
        order: iac::MigrationRepairRequest,
    ) -> Result<iac::MigrationRepairResult> {
        Ok(iac::MigrationRepairResult {
            provider_job_id: "job-9".to_owned(),
            status: "succeeded".to_owned(),
            applied: vec![order.force_version],
            logs: "forced".to_owned(),
            ..iac::MigrationRepairResult::default()
        })
    }
}

#[async_trait]
impl DiscoverRequirements for Files {
    async fn discover(
        &self,
        context: iac::RequirementContext,
        module: Map,
    ) -> Result<Vec<iac::IaCRequirement>> {
        // For the test that looks at what a plugin gets to see.
        let seen = format!("{module:?} {context:?}");
        std::fs::write(self.root.join("discovered.txt"), seen)?;
        if module.is_empty() {
            return Ok(vec![iac::IaCRequirement {
                key: format!("{}-files", context.application),
                kind: iac::RequirementKind::Storage.into(),
                ..iac::IaCRequirement::default()
            }]);
        }
        let listed = module.get("needs").and_then(Value::as_array);
        Ok(listed
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(|key| iac::IaCRequirement {
                key: key.to_owned(),
                kind: iac::RequirementKind::Database.into(),
                runtimes: vec![iac::RequirementRuntime::Kubernetes.into()],
                ..iac::IaCRequirement::default()
            })
            .collect())
    }
}

#[async_trait]
impl MapRequirements for Files {
    async fn modules(
        &self,
        request: iac::MapRequirementsRequest,
    ) -> Result<iac::MapRequirementsResponse> {
        let mut answer = iac::MapRequirementsResponse::default();
        for need in &request.requirements {
            let key = need.key.clone();
            if need.kind() != iac::RequirementKind::Database {
                answer.rejected.push(iac::RequirementDiagnostic {
                    key,
                    code: "no_such_thing".to_owned(),
                    message: "files cannot do that".to_owned(),
                });
                continue;
            }
            let config = json!({
                "provider": request.provider, "password": "${DATABASE_PASSWORD}",
            });
            answer.modules.push(iac::DerivedModuleSpec {
                name: format!("{key}-db"),
                r#type: DATABASE.to_owned(),
                config_json: config.to_string().into_bytes(),
                ..iac::DerivedModuleSpec::default()
            });
            answer.accepted_keys.push(key);
        }
        answer.notes.push(iac::RequirementNote {
            message: format!("runtime {}", request.runtime().as_str_name()),
            ..iac::RequirementNote::default()
        });
        Ok(answer)
    }
}
