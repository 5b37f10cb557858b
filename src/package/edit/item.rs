//! An item taken out of a list, whatever the list is of.

use std::path::Path;

use super::{Lines, cannot, plain};
use crate::config::{Document, Tree, TreeKind};
use crate::report::Report;

/// Takes the item whose `name` it is out of the list under the top-level `key`. Everything else says
/// afterwards what it said before, or the change is refused.
pub fn remove(path: &Path, text: &str, key: &str, name: &str) -> Result<String, Vec<Report>> {
    let document = Document::parse(path, text)?;
    let items = match document.root.get(key).map(|list| &list.kind) {
        Some(TreeKind::List(items)) => items.as_slice(),
        _ => &[],
    };
    let is_it = |item: &&Tree| item.get("name").and_then(Tree::as_text) == Some(name);
    let item = items
        .iter()
        .find(is_it)
        .ok_or_else(|| vec![cannot(path, "the entry is not there")])?;
    let lines = Lines::new(text);
    let dash = lines.dash(item.start).ok_or_else(|| {
        vec![cannot(
            path,
            &format!("its list `{key}` is written in brackets"),
        )]
    })?;
    let (start, end) = (
        lines.start_of_line(item.start),
        lines.item_end(item.start, dash),
    );
    let edited = format!("{}{}", &text[..start], &text[end..]);
    let mut expected = plain(&document.root);
    if let Some(list) = expected.get_mut(key) {
        if let Some(items) = list.as_array_mut() {
            items.retain(|item| item["name"] != name);
        }
        // A key without items is all that is left of it.
        if list.as_array().is_some_and(Vec::is_empty) {
            *list = serde_json::Value::Null;
        }
    }
    match Document::parse(path, &edited) {
        Ok(after) if plain(&after.root) == expected => Ok(edited),
        _ => Err(vec![cannot(path, "the change would have touched more")]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_item_goes_and_everything_else_stays() {
        let path = Path::new(".wfctl.yaml");
        let text = "# ours\nother: {x: 1}\nregistries:\n  # first\n  - name: a\n    url: https://a.test\n  - name: b # kept\n    url: https://b.test\nmore: 2\n";
        let edited = remove(path, text, "registries", "a").unwrap();
        assert_eq!(
            edited,
            "# ours\nother: {x: 1}\nregistries:\n  # first\n  - name: b # kept\n    url: https://b.test\nmore: 2\n"
        );
        let none = remove(path, &edited, "registries", "b").unwrap();
        assert!(
            none.contains("registries:\n") && none.ends_with("more: 2\n"),
            "{none}"
        );
        assert!(remove(path, &edited, "registries", "a").is_err());
        assert!(remove(path, "registries: [{name: a}]\n", "registries", "a").is_err());
    }
}
