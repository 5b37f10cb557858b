//! YAML text to a stream of events. Nothing is added to the library's parser but the place where it
//! is compiled: it is generic, so it is compiled where it is called, and the release profile builds
//! this crate for speed and everything around it for size (`docs/benchmarks.md`, config validate).

use std::ops::ControlFlow;

pub use serde_yaml::granit_parser::{ErrorKind, Event, ScalarStyle, ScanError, Span};
use serde_yaml::granit_parser::{Parser, options};

/// Takes each event with its place in the text. Break ends the reading.
pub type Take<'a, 'text> = dyn FnMut(Event<'text>, Span) -> ControlFlow<()> + 'a;

/// Parses `text` and hands its events to `take`, comments left out. Lists and maps may be nested
/// `depth` deep.
///
/// # Errors
/// Whatever the parser stumbles over first; everything before it has been handed over.
pub fn parse<'text>(
    text: &'text str,
    depth: usize,
    take: &mut Take<'_, 'text>,
) -> Result<(), ScanError> {
    let mut options = options! {
        block_nesting_limit: depth,
        flow_nesting_limit: depth,
    };
    options.set_emit_comments(false);
    for next in Parser::new_from_str_with_options(text, options) {
        let (event, span) = next?;
        if take(event, span).is_break() {
            break;
        }
    }
    Ok(())
}
