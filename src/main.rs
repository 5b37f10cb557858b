//! The executable: hands its arguments to the library, returns an exit code.

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    tidegate::command::start(&arguments)
}
