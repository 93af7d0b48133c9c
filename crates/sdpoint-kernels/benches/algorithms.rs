//! Compares the chosen algorithm for each layer with all others that support it.
//!
//! ```sh
//! cargo bench -p sdpoint-kernels --bench algorithms
//! cargo bench -p sdpoint-kernels --bench algorithms -- --threads 2 --rounds 9 resnet50
//! ```
//!
//! Prints one line per pass of each layer whose name contains the given text. In every round, all
//! algorithms run in turn; the result is the median over the rounds of the chosen algorithm's time
//! over another's. Layers of networks that exceed the caches, at small batches, take turns among
//! copies of their weights, which come from memory as in the network. If a ratio exceeds 1.1, or 1.3
//! where the other needs more memory for its weights, the program exits with 1: the choice in
//! `src/conv/algorithm.rs`, or its thresholds in `src/conv/tuning.rs`, are wrong for this machine.
//! Run it on an idle machine, after a change of an algorithm and before a release.

use std::fmt;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use sdpoint_kernels::{
    Context, ConvAlgorithm, ConvGeometry, ConvShape, Epilogue, PackedConv, PackedConvTranspose,
    conv_backward_data, conv_backward_weights, conv_forward,
};

/// The largest allowed ratio of the chosen algorithm's time to another's.
const LIMIT: f64 = 1.1;

/// The same if the other's packed weights take more memory.
const LIMIT_FOR_MEMORY: f64 = 1.3;

/// How long an algorithm runs in a round.
const TURN: Duration = Duration::from_millis(10);

/// The copies of a layer's weights take at least this many bytes in every form, more than the L3
/// cache of a core.
const COLD_BYTES: usize = 96 << 20;

/// Networks whose weights stay in the caches from one image to the next.
const SMALL_NETWORKS: [&str; 2] = ["preresnet20", "depthwise"];

/// Network, batch, input side, channels in and out, kernel, stride, groups.
type Row = (&'static str, usize, usize, [usize; 2], usize, usize, usize);

/// Layers of known networks, in `full` and in instances with smaller feature maps.
#[rustfmt::skip]
const LAYERS: &[Row] = &[
    ("resnet50", 1, 56, [64, 64], 1, 1, 1),
    ("resnet50", 1, 56, [64, 256], 1, 1, 1),
    ("resnet50", 1, 56, [256, 64], 1, 1, 1),
    ("resnet50", 1, 28, [128, 512], 1, 1, 1),
    ("resnet50", 1, 28, [512, 128], 1, 1, 1),
    ("resnet50", 8, 28, [128, 512], 1, 1, 1),
    ("resnet50", 1, 14, [128, 512], 1, 1, 1),
    ("resnet50", 1, 14, [256, 1024], 1, 1, 1),
    ("resnet50", 1, 14, [1024, 256], 1, 1, 1),
    ("resnet50", 8, 14, [256, 1024], 1, 1, 1),
    ("resnet50", 1, 7, [512, 2048], 1, 1, 1),
    ("resnet50", 1, 7, [2048, 512], 1, 1, 1),
    ("resnet50", 8, 7, [512, 2048], 1, 1, 1),
    ("resnet50", 1, 4, [512, 2048], 1, 1, 1),
    ("resnet50", 1, 56, [256, 512], 1, 2, 1),
    ("resnet50", 1, 14, [1024, 2048], 1, 2, 1),
    ("resnet18", 1, 56, [64, 64], 3, 1, 1),
    ("resnet18", 1, 28, [128, 128], 3, 1, 1),
    ("resnet18", 1, 14, [256, 256], 3, 1, 1),
    ("resnet18", 1, 7, [512, 512], 3, 1, 1),
    ("resnet18", 1, 28, [64, 64], 3, 1, 1),
    ("resnet18", 1, 14, [128, 128], 3, 1, 1),
    ("resnet18", 1, 7, [256, 256], 3, 1, 1),
    ("resnet18", 1, 4, [512, 512], 3, 1, 1),
    ("resnet18", 8, 7, [512, 512], 3, 1, 1),
    ("resnet18", 32, 56, [64, 64], 3, 1, 1),
    ("resnet18", 32, 14, [256, 256], 3, 1, 1),
    ("resnext50", 1, 56, [128, 128], 3, 1, 32),
    ("resnext50", 1, 56, [256, 256], 3, 2, 32),
    ("resnext50", 1, 28, [256, 256], 3, 1, 32),
    ("resnext50", 1, 14, [512, 512], 3, 1, 32),
    ("resnext50", 1, 7, [1024, 1024], 3, 1, 32),
    ("preresnet20", 128, 32, [16, 16], 3, 1, 1),
    ("preresnet20", 128, 16, [32, 32], 3, 1, 1),
    ("preresnet20", 128, 8, [64, 64], 3, 1, 1),
    ("preresnet20", 1, 32, [16, 16], 3, 1, 1),
    ("preresnet20", 1, 8, [64, 64], 3, 1, 1),
    ("wrn16-4", 128, 16, [128, 128], 3, 1, 1),
    ("wrn16-4", 128, 8, [256, 256], 3, 1, 1),
    ("wrn16-4", 16, 8, [256, 256], 3, 1, 1),
    ("depthwise", 1, 56, [128, 128], 3, 1, 128),
    ("depthwise", 1, 28, [128, 128], 3, 2, 128),
];

#[derive(Clone, Copy, PartialEq)]
enum Pass {
    Forward,
    ToData,
    ToWeights,
}

impl fmt::Display for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Pass::Forward => "forward",
            Pass::ToData => "to data",
            Pass::ToWeights => "to weights",
        })
    }
}

struct Options {
    threads: Option<NonZeroUsize>,
    rounds: usize,
    filter: String,
}

impl Options {
    fn parse() -> Result<Self, String> {
        let mut options = Options {
            threads: NonZeroUsize::new(1),
            rounds: 9,
            filter: String::new(),
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut number = || {
                let value = arguments.next().and_then(|value| value.parse().ok());
                value.ok_or_else(|| format!("{argument} takes a number above 0"))
            };
            match &*argument {
                "--threads" => options.threads = Some(number()?),
                "--rounds" => options.rounds = number()?.get(),
                // Cargo's own.
                "--bench" => {}
                _ if argument.starts_with('-') => return Err(format!("no option {argument}")),
                _ => options.filter = argument,
            }
        }
        Ok(options)
    }
}

fn main() -> ExitCode {
    let options = match Options::parse() {
        Ok(options) => options,
        Err(message) => {
            eprintln!("error: {message}");
            return ExitCode::from(2);
        }
    };
    println!(
        "{:48} {:10} {:>12}  median of chosen / other over {} rounds",
        "layer", "pass", "chosen", options.rounds
    );
    let mut slower = 0;
    for &row in LAYERS {
        let (network, batch, side, [inputs, outputs], kernel, stride, groups) = row;
        let name = format!(
            "{network} {batch}x{side}x{side} {inputs}-{outputs} k{kernel} s{stride} g{groups}"
        );
        if !name.contains(&options.filter) {
            continue;
        }
        for pass in [Pass::Forward, Pass::ToData, Pass::ToWeights] {
            let copies = if SMALL_NETWORKS.contains(&network) || pass == Pass::ToWeights {
                1
            } else {
                COLD_BYTES.div_ceil(shape(row).weight_len() * size_of::<f32>())
            };
            slower += usize::from(compare(&name, &shape(row), pass, copies, &options));
        }
    }
    if slower > 0 {
        println!(
            "{slower} passes are more than {LIMIT} times as slow as they could be, or \
             {LIMIT_FOR_MEMORY} times with more memory"
        );
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn shape((_, batch, side, channels, kernel, stride, groups): Row) -> ConvShape {
    ConvShape {
        geometry: ConvGeometry {
            in_channels: channels[0],
            out_channels: channels[1],
            kernel: [kernel; 2],
            stride: [stride; 2],
            padding: [kernel / 2; 2],
            groups,
        },
        batch,
        in_height: side,
        in_width: side,
    }
}

/// Prints the comparison of the algorithms for a pass, and returns whether another is much faster
/// than the chosen one.
fn compare(name: &str, shape: &ConvShape, pass: Pass, copies: usize, options: &Options) -> bool {
    let context = || Context::new(options.threads).expect("a context");
    let mut chosen = Candidate::new(context(), shape, pass, copies);
    let mut others: Vec<Candidate> = ConvAlgorithm::ALL
        .into_iter()
        .map(|algorithm| context().forcing(algorithm))
        .filter_map(|ctx| Candidate::other(ctx, shape, pass, copies, &chosen))
        .collect();
    // Warm up: compute all forms of weights, and fill caches.
    for candidate in others.iter_mut().chain([&mut chosen]) {
        (0..copies).for_each(|_| candidate.run());
    }
    let mut ratios = vec![Vec::new(); others.len()];
    for _ in 0..options.rounds {
        let time = chosen.turn();
        for (other, ratios) in others.iter_mut().zip(&mut ratios) {
            ratios.push(time / other.turn());
        }
    }
    let mut slower = false;
    let mut line = format!("{name:48} {pass:10} {:>12} ", chosen.algorithm);
    for (other, mut ratios) in others.iter().zip(ratios) {
        ratios.sort_by(f64::total_cmp);
        let median = ratios[ratios.len() / 2];
        let limit = match other.weight_bytes() > chosen.weight_bytes() {
            true => LIMIT_FOR_MEMORY,
            false => LIMIT,
        };
        slower |= median > limit;
        line += &format!(" {} {median:.2}", other.algorithm);
    }
    println!("{line}{}", if slower { "  SLOWER" } else { "" });
    slower
}

/// A pass by one algorithm.
struct Candidate {
    ctx: Context,
    shape: ConvShape,
    pass: Pass,
    /// The names, joined by plus signs if there are several.
    algorithm: String,
    /// Copies of the packed weights, those for the pass, and the number of runs so far.
    forward: Vec<PackedConv>,
    transposed: Vec<PackedConvTranspose>,
    runs: usize,
    x: Vec<f32>,
    y: Vec<f32>,
    w: Vec<f32>,
}

impl Candidate {
    fn new(ctx: Context, shape: &ConvShape, pass: Pass, copies: usize) -> Self {
        let w = values(shape.weight_len());
        let count = |of: Pass| if pass == of { copies } else { 0 };
        let forward = (0..count(Pass::Forward))
            .map(|_| PackedConv::new(&ctx, shape.geometry, &w))
            .collect();
        let transposed = (0..count(Pass::ToData))
            .map(|_| PackedConvTranspose::new(&ctx, shape.geometry, &w))
            .collect();
        Candidate {
            shape: *shape,
            pass,
            algorithm: algorithm(&ctx, shape, pass),
            forward,
            transposed,
            runs: 0,
            x: values(shape.input_len()),
            y: values(shape.output_len()),
            w,
            ctx,
        }
    }

    /// The same with a forced algorithm, unless it does not support the pass or is the chosen one.
    fn other(
        ctx: Context,
        shape: &ConvShape,
        pass: Pass,
        copies: usize,
        chosen: &Candidate,
    ) -> Option<Self> {
        let forced = algorithm(&ctx, shape, pass);
        (forced != chosen.algorithm).then(|| Candidate::new(ctx, shape, pass, copies))
    }

    /// The bytes of the packed weights, in all forms that the pass needs.
    fn weight_bytes(&self) -> usize {
        let forward = self.forward.iter().map(PackedConv::bytes);
        let transposed = self.transposed.iter().map(PackedConvTranspose::bytes);
        forward.chain(transposed).sum()
    }

    fn run(&mut self) {
        let Candidate {
            ctx,
            shape,
            x,
            y,
            w,
            ..
        } = self;
        self.runs += 1;
        match self.pass {
            Pass::Forward => {
                let packed = &self.forward[self.runs % self.forward.len()];
                conv_forward(ctx, shape, x, packed, Epilogue::default(), y);
            }
            Pass::ToData => {
                let packed = &self.transposed[self.runs % self.transposed.len()];
                conv_backward_data(ctx, shape, y, packed, x, false);
            }
            Pass::ToWeights => {
                conv_backward_weights(ctx, shape, x, y, w, false);
            }
        }
    }

    /// The mean time of the runs of a turn, in seconds.
    fn turn(&mut self) -> f64 {
        let start = Instant::now();
        let mut runs = 0;
        while runs == 0 || start.elapsed() < TURN {
            self.run();
            runs += 1;
        }
        start.elapsed().as_secs_f64() / f64::from(runs)
    }
}

fn algorithm(ctx: &Context, shape: &ConvShape, pass: Pass) -> String {
    let choice = ctx.algorithms();
    let algorithms = match pass {
        Pass::Forward => vec![choice.forward(shape)],
        Pass::ToData => choice.backward_data(shape),
        Pass::ToWeights => vec![choice.backward_weights(shape)],
    };
    let names: Vec<String> = algorithms.iter().map(ToString::to_string).collect();
    names.join("+")
}

fn values(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i % 17) as f32 * 0.1 - 0.8).collect()
}
