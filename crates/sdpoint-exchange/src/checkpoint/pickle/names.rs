//! The names that checkpoints may mention.

use super::super::element::Element;
use super::Name;

/// What a name stands for, if it is known.
pub(super) fn known(module: &str, name: &str) -> Option<Name> {
    Some(match (module, name) {
        ("collections", "OrderedDict") => Name::OrderedDict,
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Name::RebuildTensor,
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
            Name::RebuildParameter
        }
        ("torch" | "torch.cuda" | "torch.storage", _) if name.ends_with("Storage") => {
            Name::Storage(storage(name)?)
        }
        // What training scripts keep beside the weights: their options, the
        // best accuracy, counters.
        ("argparse", "Namespace")
        | ("collections", "defaultdict" | "Counter")
        | ("builtins" | "__builtin__", "set" | "frozenset" | "dict" | "list" | "int" | "float")
        | ("_codecs", "encode")
        | ("numpy", "dtype" | "ndarray")
        | ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar" | "_reconstruct")
        | ("pathlib", "Path" | "PosixPath" | "WindowsPath" | "PurePosixPath")
        | ("torch", "Size" | "device") => Name::Harmless,
        ("torch", _) if is_dtype(name) => Name::Harmless,
        _ => return None,
    })
}

fn storage(class: &str) -> Option<Element> {
    Some(match class.strip_suffix("Storage")? {
        "Half" => Element::F16,
        "BFloat16" => Element::BF16,
        "Float" => Element::F32,
        "Double" => Element::F64,
        "Long" => Element::Other("int64", 8),
        "Int" => Element::Other("int32", 4),
        "Short" => Element::Other("int16", 2),
        "Char" => Element::Other("int8", 1),
        "Byte" => Element::Other("uint8", 1),
        "Bool" => Element::Other("bool", 1),
        "ComplexFloat" => Element::Other("complex64", 8),
        "ComplexDouble" => Element::Other("complex128", 16),
        "Untyped" => Element::Other("bytes", 1),
        _ => return None,
    })
}

fn is_dtype(name: &str) -> bool {
    ["float", "bfloat", "int", "uint"].iter().any(|kind| {
        name.strip_prefix(kind)
            .is_some_and(|bits| matches!(bits, "8" | "16" | "32" | "64"))
    }) || name == "bool"
}
