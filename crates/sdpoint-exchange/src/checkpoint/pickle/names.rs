//! How the reader treats the names of classes and functions.

use super::super::element::Element;
use super::{Global, Meaning};

impl Global<'_> {
    /// How the reader treats it.
    pub(in super::super) fn meaning(&self) -> Meaning {
        meaning(self.module, self.name)
    }
}

fn meaning(module: &str, name: &str) -> Meaning {
    match (module, name) {
        ("collections", "OrderedDict" | "defaultdict" | "Counter")
        | ("builtins" | "__builtin__", "dict") => Meaning::Dict,
        ("builtins" | "__builtin__", "set" | "frozenset" | "list" | "tuple")
        | ("collections", "deque")
        | ("torch", "Size") => Meaning::Collection,

        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => {
            Meaning::RebuildTensor { typed: false }
        }
        ("torch._utils", "_rebuild_tensor_v3") => Meaning::RebuildTensor { typed: true },
        (
            "torch._utils",
            "_rebuild_parameter"
            | "_rebuild_parameter_with_state"
            | "_rebuild_device_tensor_from_cpu_tensor",
        )
        | ("torch.nn.parameter", "Parameter" | "Buffer")
        | ("torch", "Tensor") => Meaning::Wrapper,
        ("torch._tensor", "_rebuild_from_type_v2" | "_rebuild_from_type") => {
            Meaning::RebuildFromType
        }
        ("torch.storage", "_load_from_bytes") => Meaning::LoadFromBytes,
        ("_codecs", "encode") => Meaning::Encode,

        ("torch" | "torch.cuda" | "torch.storage", _) if name.ends_with("Storage") => {
            storage(name).map_or(Meaning::Unknown, Meaning::Storage)
        }
        ("torch", "device")
        | ("torch.serialization", "_get_layout")
        | (
            "builtins" | "__builtin__",
            "bytearray" | "bytes" | "complex" | "int" | "float" | "str",
        ) => Meaning::Plain,
        ("torch", _) => dtype(name).map_or(Meaning::Unknown, Meaning::Dtype),
        _ => Meaning::Unknown,
    }
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
        "QInt8" => Element::Other("qint8", 1),
        "QUInt8" => Element::Other("quint8", 1),
        "QInt32" => Element::Other("qint32", 4),
        "QUInt4x2" => Element::Other("quint4x2", 1),
        "QUInt2x4" => Element::Other("quint2x4", 1),
        "Untyped" => Element::Other("bytes", 1),
        _ => return None,
    })
}

fn dtype(name: &str) -> Option<Element> {
    Some(match name {
        "float16" | "half" => Element::F16,
        "bfloat16" => Element::BF16,
        "float32" | "float" => Element::F32,
        "float64" | "double" => Element::F64,
        "int64" => Element::Other("int64", 8),
        "int32" => Element::Other("int32", 4),
        "int16" => Element::Other("int16", 2),
        "int8" => Element::Other("int8", 1),
        "uint64" => Element::Other("uint64", 8),
        "uint32" => Element::Other("uint32", 4),
        "uint16" => Element::Other("uint16", 2),
        "uint8" => Element::Other("uint8", 1),
        "bool" => Element::Other("bool", 1),
        "complex32" => Element::Other("complex32", 4),
        "complex64" => Element::Other("complex64", 8),
        "complex128" => Element::Other("complex128", 16),
        _ if name.starts_with("float8_") => Element::Other("float8", 1),
        _ => return None,
    })
}
