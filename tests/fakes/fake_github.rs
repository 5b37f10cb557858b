//! `fake-github [--log FILE] [--token TOKEN] [--rotate-every N] [--pace] [--until-stdin-closes]`:
//! the fake GitHub as a program. Prints its address as the first line of stdout and runs until it
//! is stopped. The log has one line per request: method, path, status, and `decrypted` when a box
//! was opened.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::expect_used,
    reason = "a test double stands outside the seams it helps to test"
)]
#![allow(
    dead_code,
    reason = "tests use more of the fake than this program does"
)]

mod github;

use std::fs::OpenOptions;
use std::io::Read as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut options = github::Options::default();
    let mut log = None;
    let mut until_stdin_closes = false;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().expect("the flag has a value");
        match argument.as_str() {
            "--log" => log = Some(value()),
            "--token" => options.token = Some(value()),
            "--rotate-every" => {
                options.rotate_every = Some(value().parse().expect("a number of writes"));
            }
            "--until-stdin-closes" => until_stdin_closes = true,
            "--pace" => options.pace = Some(github::real_time()),
            _ => {
                println!("unknown argument");
                return ExitCode::from(2);
            }
        }
    }
    let fake = github::Fake::start(options);
    if let Some(path) = log {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .expect("the log can be opened");
        fake.log_to(Box::new(file));
    }
    println!("{}", fake.url());
    if until_stdin_closes {
        // A parent that dies closes our stdin: no fake outlives its test.
        let mut rest = Vec::new();
        drop(std::io::stdin().read_to_end(&mut rest));
        return ExitCode::SUCCESS;
    }
    loop {
        std::thread::park();
    }
}
