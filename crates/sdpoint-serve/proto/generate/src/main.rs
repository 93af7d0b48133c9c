//! Writes `src/protocol/grpc/inference.rs` from Triton's protobuf files; with `--check`,
//! fails if the file there is another.

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::{env, fs, thread};

/// Optional methods that the server refuses. Twenty methods' generic code would take a third of
/// the crate's build; these are routes with an error instead (`src/protocol/grpc/unsupported.rs`).
const LEFT_OUT: [&str; 9] = [
    "ModelStreamInfer",
    "SystemSharedMemoryStatus",
    "SystemSharedMemoryRegister",
    "SystemSharedMemoryUnregister",
    "CudaSharedMemoryStatus",
    "CudaSharedMemoryRegister",
    "CudaSharedMemoryUnregister",
    "TraceSetting",
    "LogSettings",
];

const HEADER: &str = "\
// Generated from proto/triton/*.proto, see the licence there, by
//     cargo run --manifest-path crates/sdpoint-serve/proto/generate/Cargo.toml
// Do not edit.

";

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = here.join("../../src/protocol/grpc/inference.rs");
    let generated = generate(&here.join("../triton"))?;
    if env::args().any(|argument| argument == "--check") {
        let same = fs::read_to_string(&target)? == generated;
        if !same {
            eprintln!(
                "{} differs from what the protobuf files give",
                target.display()
            );
        }
        return Ok(if same {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        });
    }
    fs::write(target, generated)?;
    Ok(ExitCode::SUCCESS)
}

fn generate(protobuf: &Path) -> Result<String, Box<dyn Error>> {
    let mut descriptors = protox::compile([protobuf.join("grpc_service.proto")], [protobuf])?;
    for file in &mut descriptors.file {
        for service in &mut file.service {
            service
                .method
                .retain(|method| !LEFT_OUT.contains(&method.name()));
        }
        file.message_type.retain(|message| {
            let method = ["Request", "Response"]
                .iter()
                .find_map(|end| message.name().strip_suffix(end));
            method.is_none_or(|method| !LEFT_OUT.contains(&method))
        });
        // Comments are found by a message's number, which has changed.
        file.source_code_info = None;
    }
    let folder = env::temp_dir().join(format!("sdpoint-generate-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let mut prost = tonic_prost_build::Config::new();
    prost.disable_comments(["."]);
    tonic_prost_build::configure()
        .build_client(false)
        .out_dir(&folder)
        // Tensors stay in the buffer that they arrived in.
        .bytes(".inference.ModelInferRequest.raw_input_contents")
        .bytes(".inference.InferTensorContents.bytes_contents")
        .bytes(".inference.ModelInferResponse.raw_output_contents")
        .compile_fds_with_config(descriptors, prost)?;
    let code = fs::read_to_string(folder.join("inference.rs"))?;
    fs::remove_dir_all(&folder)?;
    // Comments of the methods are in the markup of another documentation generator.
    let lines = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("/// @@"));
    let lines: Vec<&str> = lines.collect();
    format(&format!("{HEADER}{}\n", lines.join("\n")))
}

/// Formats code as the rest of the project is.
fn format(code: &str) -> Result<String, Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../..");
    let mut rustfmt = Command::new("rustfmt")
        .args(["--edition", "2024", "--config-path"])
        .arg(root)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut input = rustfmt.stdin.take().ok_or("rustfmt takes no code")?;
    let code = code.to_owned();
    let writer = thread::spawn(move || input.write_all(code.as_bytes()));
    let output = rustfmt.wait_with_output()?;
    writer.join().map_err(|_| "rustfmt ended too early")??;
    if !output.status.success() {
        return Err("rustfmt failed".into());
    }
    Ok(String::from_utf8(output.stdout)?)
}
