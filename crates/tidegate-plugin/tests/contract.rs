//! The compiled contract against `proto/contract.tsv`: every service, message, field number and
//! type, in both directions.

use std::collections::BTreeSet;

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet};
use tidegate_plugin::{FILE_DESCRIPTOR_SET, iac};

const CONTRACT: &str = include_str!("../../../proto/contract.tsv");

fn written() -> BTreeSet<String> {
    CONTRACT
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

/// The compiled files as lines of the same form.
fn compiled() -> BTreeSet<String> {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let mut lines = BTreeSet::new();
    for file in &set.file {
        let package = file.package();
        if package.starts_with("google.") {
            continue;
        }
        assert_eq!(file.syntax(), "proto3", "{}", file.name());
        for service in &file.service {
            for method in &service.method {
                lines.insert(format!(
                    "rpc\t{package}.{}\t{}\t{}\t{}\t{}",
                    service.name(),
                    method.name(),
                    plain(method.input_type()),
                    plain(method.output_type()),
                    match (method.client_streaming(), method.server_streaming()) {
                        (false, false) => "unary",
                        (false, true) => "server-stream",
                        (true, true) => "bidirectional",
                        (true, false) => "client-stream",
                    }
                ));
            }
        }
        enums(package, &file.enum_type, &mut lines);
        let mut pending: Vec<(String, &DescriptorProto)> = file
            .message_type
            .iter()
            .map(|message| (format!("{package}.{}", message.name()), message))
            .collect();
        while let Some((name, message)) = pending.pop() {
            lines.insert(format!("message\t{name}"));
            enums(&name, &message.enum_type, &mut lines);
            for nested in &message.nested_type {
                if !nested
                    .options
                    .as_ref()
                    .is_some_and(prost_types::MessageOptions::map_entry)
                {
                    pending.push((format!("{name}.{}", nested.name()), nested));
                }
            }
            for range in &message.reserved_range {
                for number in range.start()..range.end() {
                    lines.insert(format!("reserved\t{name}\t{number}"));
                }
            }
            assert!(message.oneof_decl.is_empty(), "{name} has no oneof");
            for field in &message.field {
                assert!(!field.proto3_optional(), "{name}.{}", field.name());
                lines.insert(format!(
                    "field\t{name}\t{}\t{}\t{}",
                    field.name(),
                    field.number(),
                    type_of(field, message, &name)
                ));
            }
        }
    }
    lines
}

fn enums(scope: &str, kinds: &[EnumDescriptorProto], lines: &mut BTreeSet<String>) {
    for kind in kinds {
        for value in &kind.value {
            lines.insert(format!(
                "value\t{scope}.{}\t{}\t{}",
                kind.name(),
                value.name(),
                value.number()
            ));
        }
    }
}

fn plain(name: &str) -> &str {
    name.trim_start_matches('.')
}

fn type_of(field: &FieldDescriptorProto, message: &DescriptorProto, name: &str) -> String {
    let bare = match field.r#type() {
        Type::String => "string",
        Type::Bytes => "bytes",
        Type::Bool => "bool",
        Type::Int32 => "int32",
        Type::Int64 => "int64",
        Type::Uint32 => "uint32",
        Type::Double => "double",
        Type::Message | Type::Enum => plain(field.type_name()),
        other => panic!("{name}.{}: {other:?} is not used here", field.name()),
    };
    if field.label() != Label::Repeated {
        return bare.to_owned();
    }
    // A map is a repeated entry message of its own.
    let entry = bare
        .strip_prefix(name)
        .and_then(|rest| rest.strip_prefix('.'))
        .and_then(|entry| {
            message
                .nested_type
                .iter()
                .find(|nested| nested.name() == entry)
        });
    match entry {
        Some(entry) => {
            assert!(
                entry
                    .options
                    .as_ref()
                    .is_some_and(|options| options.map_entry())
            );
            let [key, value] = entry.field.as_slice() else {
                panic!("a map entry has a key and a value")
            };
            format!(
                "map<{},{}>",
                type_of(key, entry, name),
                type_of(value, entry, name)
            )
        }
        None => format!("repeated {bare}"),
    }
}

#[test]
fn the_compiled_contract_is_the_written_one() {
    let (written, compiled) = (written(), compiled());
    let missing: Vec<_> = written.difference(&compiled).collect();
    let surplus: Vec<_> = compiled.difference(&written).collect();
    assert!(
        missing.is_empty() && surplus.is_empty(),
        "written, not compiled: {missing:#?}\ncompiled, not written: {surplus:#?}"
    );
    assert_eq!(written.len(), 730);
}

#[test]
fn the_list_is_sorted_and_says_nothing_twice() {
    let lines: Vec<&str> = CONTRACT
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect();
    assert!(lines.is_sorted());
    assert_eq!(lines.len(), written().len());
}

#[test]
fn what_was_removed_has_not_come_back() {
    for gone in ["ApplyRequest", "ApplyResponse"] {
        let name = format!("\tworkflow.plugin.external.iac.{gone}");
        assert!(
            !compiled().iter().any(|line| line.ends_with(&name)),
            "{gone}"
        );
    }
    let apply = "rpc\tworkflow.plugin.external.iac.IaCProviderRequired\tApply\t";
    assert!(!compiled().iter().any(|line| line.starts_with(apply)));
}

#[test]
fn a_message_has_the_bytes_the_wire_format_prescribes() {
    let spec = iac::ResourceSpec {
        name: "db".to_owned(),
        r#type: "infra.database".to_owned(),
        config_json: b"{}".to_vec(),
        size: String::new(),
        hints: None,
        depends_on: vec!["a".to_owned(), "b".to_owned()],
    };
    let mut expected = vec![0x0A, 2];
    expected.extend(b"db");
    expected.extend([0x12, 14]);
    expected.extend(b"infra.database");
    expected.extend([0x1A, 2]);
    expected.extend(b"{}");
    expected.extend([0x32, 1, b'a', 0x32, 1, b'b']);
    assert_eq!(spec.encode_to_vec(), expected);
    assert_eq!(
        iac::ResourceSpec::decode(expected.as_slice()).unwrap(),
        spec
    );
}
