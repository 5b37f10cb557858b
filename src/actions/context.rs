//! What a job knows about itself, read once from the environment snapshot. The only place that
//! knows GitHub's variable names for these facts.

use std::path::PathBuf;

use crate::variables::Variables;

/// Where the job runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunnerEnvironment {
    /// A machine of GitHub's that disappears with the job.
    GithubHosted,
    /// Somebody's own machine, or unknown: nothing is assumed about its disk.
    SelfHosted,
}

/// The facts of one workflow step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// `owner/name`; empty when the runner does not say.
    pub repository: String,
    /// The run's number, the same for every attempt.
    pub run_id: String,
    /// Which attempt this is, from 1.
    pub run_attempt: u32,
    /// The job's key in the workflow file.
    pub job: String,
    /// The name of the runner the job is on.
    pub runner: String,
    /// The workflow's name.
    pub workflow: String,
    /// The commit the run is about.
    pub sha: String,
    /// The ref, such as `refs/heads/main`.
    pub reference: String,
    /// The event that started the run.
    pub event_name: String,
    /// Who started it.
    pub actor: String,
    /// The folder the repository is checked out in.
    pub workspace: PathBuf,
    /// Base URL of the REST API, without a final slash.
    pub api_url: String,
    /// Base URL of the web site, without a final slash.
    pub server_url: String,
    /// Where the job runs.
    pub runner_environment: RunnerEnvironment,
    /// Step debugging is on (`RUNNER_DEBUG=1`).
    pub is_debug: bool,
    /// Entries for later steps' environment (`GITHUB_ENV`).
    pub env_file: Option<PathBuf>,
    /// Entries for the step's outputs (`GITHUB_OUTPUT`).
    pub output_file: Option<PathBuf>,
    /// The job summary (`GITHUB_STEP_SUMMARY`).
    pub summary_file: Option<PathBuf>,
    /// A folder emptied with the job (`RUNNER_TEMP`).
    pub runner_temp: Option<PathBuf>,
}

impl Context {
    /// The context when we run inside GitHub Actions (`GITHUB_ACTIONS=true`), else `None`.
    pub fn from_variables(variables: &Variables) -> Option<Self> {
        if variables.get("GITHUB_ACTIONS") != Some("true") {
            return None;
        }
        let text = |name: &str| variables.get(name).unwrap_or_default().to_owned();
        let path = |name: &str| variables.non_empty(name).map(PathBuf::from);
        let url = |name: &str, default: &str| {
            variables
                .non_empty(name)
                .unwrap_or(default)
                .trim_end_matches('/')
                .to_owned()
        };
        Some(Self {
            repository: text("GITHUB_REPOSITORY"),
            run_id: text("GITHUB_RUN_ID"),
            run_attempt: variables
                .get("GITHUB_RUN_ATTEMPT")
                .and_then(|value| value.parse().ok())
                .unwrap_or(1),
            job: text("GITHUB_JOB"),
            runner: text("RUNNER_NAME"),
            workflow: text("GITHUB_WORKFLOW"),
            sha: text("GITHUB_SHA"),
            reference: text("GITHUB_REF"),
            event_name: text("GITHUB_EVENT_NAME"),
            actor: text("GITHUB_ACTOR"),
            workspace: path("GITHUB_WORKSPACE").unwrap_or_else(|| PathBuf::from(".")),
            api_url: url("GITHUB_API_URL", "https://api.github.com"),
            server_url: url("GITHUB_SERVER_URL", "https://github.com"),
            runner_environment: match variables.get("RUNNER_ENVIRONMENT") {
                Some("github-hosted") => RunnerEnvironment::GithubHosted,
                _ => RunnerEnvironment::SelfHosted,
            },
            is_debug: variables.get("RUNNER_DEBUG") == Some("1"),
            env_file: path("GITHUB_ENV"),
            output_file: path("GITHUB_OUTPUT"),
            summary_file: path("GITHUB_STEP_SUMMARY"),
            runner_temp: path("RUNNER_TEMP"),
        })
    }

    /// This job among those of its run. Those of a matrix have one key, and each a runner of its own.
    pub fn own_job(&self) -> String {
        format!("{} on {}", self.job, self.runner)
    }

    /// The page of this run and attempt; `None` when the runner did not say which run it is.
    pub fn run_url(&self) -> Option<String> {
        if self.repository.is_empty() || self.run_id.is_empty() {
            return None;
        }
        Some(format!(
            "{}/{}/actions/runs/{}/attempts/{}",
            self.server_url, self.repository, self.run_id, self.run_attempt
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> Variables {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn outside_actions_there_is_no_context() {
        for value in ["", "false", "TRUE", "1"] {
            assert_eq!(
                Context::from_variables(&variables(&[("GITHUB_ACTIONS", value)])),
                None
            );
        }
        assert_eq!(Context::from_variables(&Variables::default()), None);
    }

    #[test]
    fn a_bare_runner_gets_public_defaults_and_no_files() {
        let context = Context::from_variables(&variables(&[("GITHUB_ACTIONS", "true")]))
            .expect("inside Actions");
        assert_eq!(context.api_url, "https://api.github.com");
        assert_eq!(context.run_attempt, 1);
        assert_eq!(context.run_url(), None);
        assert_eq!(context.output_file, None);
        assert_eq!(context.runner_environment, RunnerEnvironment::SelfHosted);
    }

    #[test]
    fn a_run_knows_its_page() {
        let context = Context::from_variables(&variables(&[
            ("GITHUB_ACTIONS", "true"),
            ("GITHUB_SERVER_URL", "https://git.example/"),
            ("GITHUB_REPOSITORY", "acme/app"),
            ("GITHUB_RUN_ID", "77"),
            ("GITHUB_RUN_ATTEMPT", "2"),
            ("RUNNER_ENVIRONMENT", "github-hosted"),
            ("GITHUB_OUTPUT", "/tmp/out"),
            ("GITHUB_STEP_SUMMARY", ""),
        ]))
        .expect("inside Actions");
        assert_eq!(
            context.run_url().as_deref(),
            Some("https://git.example/acme/app/actions/runs/77/attempts/2")
        );
        assert_eq!(context.runner_environment, RunnerEnvironment::GithubHosted);
        assert_eq!(context.output_file, Some(PathBuf::from("/tmp/out")));
        assert_eq!(context.summary_file, None);
    }
}
