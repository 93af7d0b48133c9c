//! `sdpoint serve` as a process on a core of its own.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::client::{Client, Requests};

#[derive(clap::Args, Clone, Debug)]
pub struct ServerArgs {
    /// The program `sdpoint`
    #[arg(long, default_value = "../../target/release/sdpoint")]
    pub program: PathBuf,
    /// The model file, with a profile beside it
    #[arg(long)]
    pub model: PathBuf,
    /// The core that the server runs on
    #[arg(long, default_value_t = 0)]
    pub core: usize,
}

/// A running server; it is killed when dropped.
pub struct Server {
    process: Child,
    grpc: String,
}

/// The name under which the model is served.
pub const MODEL: &str = "model";

impl Server {
    /// Starts the server. One client may queue as much as it likes: all load comes from
    /// one address.
    pub fn start(args: &ServerArgs) -> anyhow::Result<Self> {
        let mut model = std::ffi::OsString::from(format!("{MODEL}="));
        model.push(&args.model);
        let mut process = on_core(args.core, &args.program)
            .arg("serve")
            .arg(model)
            .args(["--threads", "1", "--listen", "127.0.0.1:0"])
            .args(["--max-per-client", "1000000", "--log", "warn"])
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", args.program.display()))?;
        let output = process.stdout.take().expect("it is piped");
        let mut grpc = None;
        for line in BufReader::new(output).lines().take(3) {
            if let Some(address) = line?.strip_prefix("gRPC") {
                grpc = Some(address.trim().to_owned());
            }
        }
        match grpc {
            Some(grpc) => Ok(Self { process, grpc }),
            None => bail!("the server ended: {}", process.wait()?),
        }
    }

    /// A client, once the server answers requests.
    pub async fn client(&self, requests: &Requests) -> anyhow::Result<Client> {
        let client = Client::connect(&self.grpc).await?;
        for _ in 0..1200 {
            if client.infer(requests.request(0)).await.is_ok() {
                return Ok(client);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        bail!("the server is not ready after two minutes")
    }

    /// Resident memory, in bytes.
    pub fn memory(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
        let kilobytes = kilobytes.context("the system does not report resident memory")?;
        Ok(1024 * kilobytes.trim().parse::<u64>()?)
    }

    /// Ends the server in order, and checks that it does.
    pub fn stop(mut self) -> anyhow::Result<()> {
        let id = self.process.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &id]).status()?;
        ensure!(sent.success(), "cannot stop the server");
        let status = self.process.wait()?;
        ensure!(status.success(), "the server ended with {status}");
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended already if it was stopped.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A program that will run on one core.
pub fn on_core(core: usize, program: &std::path::Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", &core.to_string()]).arg(program);
    command
}
