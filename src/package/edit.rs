//! Small changes to YAML that people wrote: comments, order, quotes and spacing of everything else
//! stay as they are. After each change the text is read again, and a change that did more (or less)
//! than was meant is thrown away.

pub mod item;
mod lines;

use std::path::Path;

use lines::Lines;

use super::manifest::{Manifest, Wanted};
use crate::config::{Document, Field, Tree, TreeKind};
use crate::report::{Exit, Report};

/// What a new entry says.
#[derive(Clone, Debug, Default)]
pub struct NewEntry {
    /// Name.
    pub name: String,
    /// Exact version.
    pub version: String,
    /// Source, when one is named.
    pub source: Option<String>,
    /// `auth.env`.
    pub auth_env: Option<String>,
    /// `verify.identity`.
    pub identity: Option<String>,
}

/// The text of a manifest that has no file yet.
pub const NEW_MANIFEST: &str = "version: 1\nplugins: []\n";

/// Adds a plugin at the end of the list.
pub fn add(path: &Path, text: &str, entry: &NewEntry) -> Result<String, Vec<Report>> {
    let edited = append_text(path, text, "plugins", &|dash, newline| {
        entry_text(entry, dash, newline)
    })?;
    confirm(path, text, edited, |plugins| {
        plugins.push(key_of(entry));
    })
}

/// Adds `items` at the end of the list under the top-level `key`, which is made when it is missing.
/// `yaml` is how they are to be written: the text of a list, unindented. Whatever it holds, the
/// file afterwards says what it said before plus exactly `items`, or it is refused.
pub fn append(
    path: &Path,
    text: &str,
    key: &str,
    yaml: &str,
    items: &[serde_json::Value],
) -> Result<String, Vec<Report>> {
    let edited = append_text(path, text, key, &|dash, newline| {
        let pad = " ".repeat(dash);
        let mut indented = String::new();
        for line in yaml.lines() {
            if !line.is_empty() {
                indented.push_str(&pad);
                indented.push_str(line);
            }
            indented.push_str(newline);
        }
        indented
    })?;
    let mut expected = plain(&Document::parse(path, text)?.root);
    if let Some(fields) = expected.as_object_mut() {
        let list = fields.entry(key).or_insert(serde_json::Value::Null);
        if list.is_null() {
            *list = serde_json::Value::Array(Vec::new());
        }
        if let Some(list) = list.as_array_mut() {
            list.extend_from_slice(items);
        }
    }
    // What does not even parse would be reported at lines that nobody has on disk.
    match Document::parse(path, &edited) {
        Ok(after) if plain(&after.root) == expected => Ok(edited),
        _ => Err(vec![cannot(path, "the change would have touched more")]),
    }
}

/// The text with a new item at the end of the list under a top-level key.
fn append_text(
    path: &Path,
    text: &str,
    key: &str,
    item: &dyn Fn(usize, &str) -> String,
) -> Result<String, Vec<Report>> {
    let document = Document::parse(path, text)?;
    let lines = Lines::new(text);
    Ok(
        match document.root.get(key).map(|list| (&list.kind, list)) {
            None => {
                let mut edited = lines.closed();
                edited.push_str(&format!("{key}:{}", lines.newline));
                edited.push_str(&item(2, lines.newline));
                edited
            }
            Some((TreeKind::List(items), list)) if items.is_empty() => {
                let open = list.start;
                let close = text[open..]
                    .find(']')
                    .map(|at| open + at + 1)
                    .filter(|close| text[open + 1..close - 1].trim().is_empty())
                    .ok_or_else(|| {
                        vec![cannot(
                            path,
                            &format!("its list `{key}` is written in a way only people can change"),
                        )]
                    })?;
                let line_end = lines.end_of_line(close);
                let mut edited = text[..open].trim_end_matches(' ').to_owned();
                edited.push_str(&text[close..line_end]);
                if !edited.ends_with('\n') {
                    edited.push_str(lines.newline);
                }
                edited.push_str(&item(2, lines.newline));
                edited.push_str(&text[line_end..]);
                edited
            }
            Some((TreeKind::Null, list)) => {
                // A word for nothing makes room for something.
                let written = text.get(list.start..list.end).unwrap_or_default();
                let text = match written.trim() {
                    "null" | "Null" | "NULL" | "~" => format!(
                        "{}{}",
                        text[..list.start].trim_end_matches(' '),
                        &text[list.end..]
                    ),
                    _ => text.to_owned(),
                };
                let lines = Lines::new(&text);
                let start = document
                    .root
                    .fields()
                    .iter()
                    .find(|field| field.key == key)
                    .map_or(0, |field| field.start);
                lines.insert(lines.end_of_line(start), &item(2, lines.newline))
            }
            Some((TreeKind::List(items), _)) => {
                let last = items.last().map_or(0, |item| item.start);
                let dash = lines.dash(last).ok_or_else(|| {
                    vec![cannot(
                        path,
                        &format!("its list `{key}` is written in brackets, or an item of it does not begin with `- name: …`"),
                    )]
                })?;
                let at = lines.item_end(last, dash);
                lines.insert(at, &item(dash, lines.newline))
            }
            Some(_) => return Err(vec![cannot(path, &format!("`{key}` is not a list"))]),
        },
    )
}

/// Takes a plugin out.
pub fn remove(path: &Path, text: &str, name: &str) -> Result<String, Vec<Report>> {
    let document = Document::parse(path, text)?;
    let lines = Lines::new(text);
    let item = item_of(path, &document, name)?;
    let dash = lines
        .dash(item.start)
        .ok_or_else(|| vec![cannot(path, "its list `plugins` is written in brackets, or an item of it does not begin with `- name: …`")])?;
    let start = lines.start_of_line(item.start);
    let end = lines.item_end(item.start, dash);
    let edited = format!("{}{}", &text[..start], &text[end..]);
    confirm(path, text, edited, |plugins| {
        plugins.retain(|plugin| plugin[0] != name);
    })
}

/// Changes the version of a plugin.
pub fn set_version(
    path: &Path,
    text: &str,
    name: &str,
    version: &str,
) -> Result<String, Vec<Report>> {
    let document = Document::parse(path, text)?;
    let item = item_of(path, &document, name)?;
    let Some(value) = item.get("version") else {
        return Err(vec![cannot(path, "the entry has no `version`")]);
    };
    let quote = match text[value.start..].chars().next() {
        Some(quote @ ('"' | '\'')) => quote.to_string(),
        _ => String::new(),
    };
    let edited = format!(
        "{}{quote}{version}{quote}{}",
        &text[..value.start],
        &text[value.end..]
    );
    confirm(path, text, edited, |plugins| {
        for plugin in plugins {
            if plugin[0] == name {
                version.clone_into(&mut plugin[1]);
            }
        }
    })
}

/// Takes `keys` out of every map of `requires.plugins`.
pub fn strip_requires(path: &Path, text: &str, keys: &[&str]) -> Result<String, Vec<Report>> {
    let mut edited = text.to_owned();
    // One key at a time, from a fresh reading: places move with every cut.
    for _ in 0..10_000 {
        let document = Document::parse(path, &edited)?;
        let items = match document
            .root
            .get("requires")
            .and_then(|requires| requires.get("plugins"))
            .map(|list| &list.kind)
        {
            Some(TreeKind::List(items)) => items,
            _ => break,
        };
        let found = items.iter().find_map(|item| {
            item.fields()
                .iter()
                .position(|field| keys.contains(&field.key.as_str()))
                .map(|position| (item, position))
        });
        let Some((item, position)) = found else {
            break;
        };
        let cut = cut_field(&edited, item, position).ok_or_else(|| {
            vec![cannot(
                path,
                "an entry of `requires.plugins` is written in a way only people can change",
            )]
        })?;
        edited.replace_range(cut, "");
    }
    let before = Document::parse(path, text)?;
    let after = Document::parse(path, &edited)?;
    let mut expected = plain(&before.root);
    if let Some(items) = expected
        .pointer_mut("/requires/plugins")
        .and_then(serde_json::Value::as_array_mut)
    {
        for fields in items.iter_mut().filter_map(|item| item.as_object_mut()) {
            fields.retain(|key, _| !keys.contains(&key.as_str()));
        }
    }
    if plain(&after.root) == expected {
        Ok(edited)
    } else {
        Err(vec![cannot(path, "the change would have touched more")])
    }
}

/// The bytes to delete so that one field of a map is gone.
fn cut_field(text: &str, item: &Tree, position: usize) -> Option<std::ops::Range<usize>> {
    let fields = item.fields();
    let field = fields.get(position)?;
    let lines = Lines::new(text);
    if text[item.start..].starts_with('{') {
        let end = flow_end(text, &field.value)?;
        return match fields.get(position + 1) {
            Some(next) => Some(field.start..next.start),
            None if position > 0 => {
                let comma = text[item.start..field.start].rfind(',')? + item.start;
                Some(comma..end)
            }
            None => None,
        };
    }
    let line = lines.start_of_line(field.start);
    if text[line..field.start].trim().is_empty() {
        let column = field.start - line;
        return Some(line..lines.block_end(lines.end_of_line(field.start), column));
    }
    // On the line of the dash: the next key moves up, unless a comment would go with it.
    let next = fields.get(position + 1)?;
    let between = &text[lines.end_of_line(field.start)..lines.start_of_line(next.start)];
    (!between.contains('#')).then_some(field.start..next.start)
}

/// Where a value inside braces ends.
fn flow_end(text: &str, value: &Tree) -> Option<usize> {
    match &value.kind {
        TreeKind::Map(_) | TreeKind::List(_) => {
            let mut depth = 0_usize;
            let mut quote = None;
            for (at, letter) in text[value.start..].char_indices() {
                match (quote, letter) {
                    (Some(open), _) if open == letter => quote = None,
                    (Some(_), _) => {}
                    (None, '"' | '\'') => quote = Some(letter),
                    (None, '{' | '[') => depth += 1,
                    (None, '}' | ']') => {
                        depth = depth.checked_sub(1)?;
                        if depth == 0 {
                            return Some(value.start + at + 1);
                        }
                    }
                    _ => {}
                }
            }
            None
        }
        _ => Some(value.end),
    }
}

fn entry_text(entry: &NewEntry, dash: usize, newline: &str) -> String {
    let pad = " ".repeat(dash);
    let mut text = format!(
        "{pad}- name: {}{newline}{pad}  version: {}{newline}",
        entry.name, entry.version
    );
    let quoted = |value: &str| serde_json::Value::from(value).to_string();
    if let Some(source) = &entry.source {
        let is_plain = source
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'/' | b'-' | b'_'));
        let source = if is_plain {
            source.clone()
        } else {
            quoted(source)
        };
        text.push_str(&format!("{pad}  source: {source}{newline}"));
    }
    if let Some(variable) = &entry.auth_env {
        text.push_str(&format!(
            "{pad}  auth:{newline}{pad}    env: {variable}{newline}"
        ));
    }
    if let Some(identity) = &entry.identity {
        text.push_str(&format!(
            "{pad}  verify:{newline}{pad}    identity: {}{newline}",
            quoted(identity)
        ));
    }
    text
}

fn item_of<'d>(path: &Path, document: &'d Document, name: &str) -> Result<&'d Tree, Vec<Report>> {
    let items = match document.root.get("plugins").map(|list| &list.kind) {
        Some(TreeKind::List(items)) => items.as_slice(),
        _ => &[],
    };
    items
        .iter()
        .find(|item| item.get("name").and_then(Tree::as_text) == Some(name))
        .ok_or_else(|| vec![cannot(path, "the entry is not there")])
}

/// What a plugin says, for comparing before and after.
type Key = [String; 5];

fn key_of(entry: &NewEntry) -> Key {
    let or_empty = |text: &Option<String>| text.clone().unwrap_or_default();
    [
        entry.name.clone(),
        entry.version.clone(),
        or_empty(&entry.source),
        or_empty(&entry.auth_env),
        or_empty(&entry.identity),
    ]
}

fn key_of_wanted(plugin: &Wanted) -> Key {
    key_of(&NewEntry {
        name: plugin.name.clone(),
        version: plugin.version.clone(),
        source: plugin.source.as_ref().map(ToString::to_string),
        auth_env: plugin.auth_env.clone(),
        identity: plugin.identity.clone(),
    })
}

/// Reads the edited text again: it must hold the plugins of the old one with `change` done to them,
/// and everything else as it was.
fn confirm(
    path: &Path,
    before: &str,
    after: String,
    change: impl FnOnce(&mut Vec<Key>),
) -> Result<String, Vec<Report>> {
    let keys = |text: &str| -> Result<Vec<Key>, Vec<Report>> {
        Ok(Manifest::parse(path, text)?
            .plugins
            .iter()
            .map(key_of_wanted)
            .collect())
    };
    let rest = |text: &str| -> Result<serde_json::Value, Vec<Report>> {
        let mut value = plain(&Document::parse(path, text)?.root);
        if let Some(fields) = value.as_object_mut() {
            fields.remove("plugins");
        }
        Ok(value)
    };
    let mut expected = keys(before)?;
    change(&mut expected);
    let others = rest(before)?;
    // What is wrong with a text that is on no disk helps nobody.
    let is_as_meant = keys(&after).is_ok_and(|keys| keys == expected)
        && rest(&after).is_ok_and(|rest| rest == others);
    if is_as_meant {
        Ok(after)
    } else {
        Err(vec![cannot(path, "the change would have touched more")])
    }
}

/// A tree without its places.
fn plain(tree: &Tree) -> serde_json::Value {
    use serde_json::Value;
    match &tree.kind {
        TreeKind::Null => Value::Null,
        TreeKind::Bool(value) => Value::Bool(*value),
        TreeKind::Number(number) => Value::Number(number.clone()),
        TreeKind::Text(text) => Value::String(text.clone()),
        TreeKind::List(items) => Value::Array(items.iter().map(plain).collect()),
        TreeKind::Map(fields) => Value::Object(
            fields
                .iter()
                .map(|Field { key, value, .. }| (key.clone(), plain(value)))
                .collect(),
        ),
    }
}

fn cannot(path: &Path, why: &str) -> Report {
    Report::error(
        "package/cannot-edit",
        format!(
            "`{}` cannot be changed automatically: {why}",
            path.display()
        ),
    )
    .fix("make the change by hand, with one item a line (`- name: …`)")
    .exit(Exit::Usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "\
# what we use
version: 1 # of the format

plugins:
  # the cloud
  - name: digitalocean # short
    version: 'v1.4.2'  # pinned
    source: github.com/acme/wf-do

  # the other one
  - {name: aws, version: v2.0.0} # inline
# the end
registries: []
";

    fn path() -> &'static Path {
        Path::new("wfctl.yaml")
    }

    fn entry() -> NewEntry {
        NewEntry {
            name: "gcp".to_owned(),
            version: "v0.1.0".to_owned(),
            source: Some("https://example.net/{version}".to_owned()),
            auth_env: Some("TOKEN".to_owned()),
            identity: None,
        }
    }

    #[test]
    fn a_word_for_nothing_makes_room_and_what_cannot_be_edited_is_not_shown_edited() {
        for (before, first) in [
            ("version: 1\nplugins: null\n", "plugins:\n  - name: gcp\n"),
            (
                "version: 1\nplugins: ~ # none\n",
                "plugins: # none\n  - name: gcp\n",
            ),
            ("version: 1\nplugins:\n", "plugins:\n  - name: gcp\n"),
        ] {
            let after = add(path(), before, &entry()).unwrap();
            assert!(after.contains(first), "{after}");
        }
        // A comment at the very left ends an item for us, and not for YAML.
        let odd = "version: 1\nplugins:\n  - name: a\n# here\n    version: v1.0.0\n    source: github.com/a/b\n";
        for problems in [add(path(), odd, &entry()), remove(path(), odd, "a")] {
            assert_eq!(problems.unwrap_err()[0].code, "package/cannot-edit");
        }
    }

    #[test]
    fn a_version_changes_and_nothing_else() {
        let edited = set_version(path(), MANIFEST, "digitalocean", "v1.5.0").unwrap();
        assert_eq!(edited, MANIFEST.replace("v1.4.2", "v1.5.0"));
        let edited = set_version(path(), MANIFEST, "aws", "v3.0.0").unwrap();
        assert_eq!(edited, MANIFEST.replace("v2.0.0", "v3.0.0"));
    }

    #[test]
    fn an_entry_is_added_behind_the_last() {
        let edited = add(path(), MANIFEST, &entry()).unwrap();
        let new = "  - name: gcp\n    version: v0.1.0\n    source: \"https://example.net/{version}\"\n    auth:\n      env: TOKEN\n";
        assert_eq!(
            edited,
            MANIFEST.replace("# inline\n", &format!("# inline\n{new}"))
        );
        for (before, after) in [
            (NEW_MANIFEST, "version: 1\nplugins:\n"),
            (
                "version: 1\nplugins: [ ] # none yet",
                "version: 1\nplugins: # none yet\n",
            ),
            ("version: 1\nplugins:\n", "version: 1\nplugins:\n"),
            ("version: 1", "version: 1\nplugins:\n"),
        ] {
            assert_eq!(
                add(path(), before, &entry()).unwrap(),
                format!("{after}{new}")
            );
        }
    }

    #[test]
    fn any_list_grows_by_exactly_what_was_meant() {
        let config = "\
modules: # all of them
- name: a # first
  config: {x: |-}

# the end
other: 1";
        let item = serde_json::json!({"name": "b", "config": {"text": "one\n\n  two\n"}});
        let yaml = "- name: b\n  config:\n    text: |\n      one\n\n        two\n";
        let path = Path::new("infra.yaml");
        let items = std::slice::from_ref(&item);
        let config = config.replace("{x: |-}", "{x: y}");
        let edited = append(path, &config, "modules", yaml, items).unwrap();
        assert_eq!(
            edited,
            config.replace("x: y}\n", &format!("x: y}}\n{yaml}"))
        );
        // Text that says more, less or something else than the items is thrown away.
        for wrong in [
            "- name: b\n",
            "- name: b\n  config: {text: \"one\\n\\n  two\\n\"}\nother: 2\n",
            "- name: b\n  config: {text: \"one\\n\\n  two\\n\"}\n- name: c\n",
            "- name: b\n  config: [\n",
        ] {
            let refused = append(path, &config, "modules", wrong, items).unwrap_err();
            assert_eq!(refused[0].code, "package/cannot-edit", "{wrong}");
        }
        assert!(append(path, "modules: [{name: a}]\n", "modules", yaml, items).is_err());
        let fresh = append(path, "modules:\n", "modules", yaml, items).unwrap();
        assert!(
            fresh.starts_with("modules:\n  - name: b\n    config:\n"),
            "{fresh}"
        );
    }

    #[test]
    fn windows_line_ends_stay() {
        let text = MANIFEST.replace('\n', "\r\n");
        let edited = add(path(), &text, &entry()).unwrap();
        assert_eq!(edited.matches('\n').count(), edited.matches("\r\n").count());
    }

    #[test]
    fn an_entry_goes_and_comments_stay() {
        let edited = remove(path(), MANIFEST, "digitalocean").unwrap();
        assert!(edited.contains("# the cloud\n") && edited.contains("# the other one\n"));
        assert!(!edited.contains("wf-do") && edited.contains("aws"));
        let edited = remove(path(), MANIFEST, "aws").unwrap();
        assert_eq!(
            edited,
            MANIFEST.replace("  - {name: aws, version: v2.0.0} # inline\n", "")
        );
    }

    #[test]
    fn what_only_people_can_change_is_refused() {
        let text = "version: 1\nplugins: [{name: a, version: 1.0.0}]\n";
        assert_eq!(
            add(path(), text, &entry()).unwrap_err()[0].code,
            "package/cannot-edit"
        );
        assert!(remove(path(), text, "a").is_err());
        assert!(set_version(path(), text, "a", "2.0.0").is_ok());
    }

    #[test]
    fn pins_leave_an_application_file() {
        let text = "\
modules: [] # nothing
requires:
  plugins:
    # the cloud
    - name: do # short
      version: v1.0.0 # pinned
      # where from
      source: github.com/acme/wf-do
      auth:
        env: TOKEN
    - {name: aws, version: v1.0.0, auth: {env: T}} # inline
    - version: v3.0.0
      name: gcp
    - plain
  other: 1 # kept
";
        let edited =
            strip_requires(path(), text, &["version", "source", "auth", "verify"]).unwrap();
        assert_eq!(
            edited,
            "\
modules: [] # nothing
requires:
  plugins:
    # the cloud
    - name: do # short
      # where from
    - {name: aws} # inline
    - name: gcp
    - plain
  other: 1 # kept
"
        );
        assert_eq!(
            strip_requires(path(), &edited, &["version"]).unwrap(),
            edited
        );
    }
}
