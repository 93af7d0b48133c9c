//! Export of a network as the source of a PyTorch module.
//!
//! The code is generated for the network: blocks become classes, blocks with the
//! same layers share one, and numbers in which they differ become arguments.
//! Members are named as in the state dict.

mod class;
mod module;
mod structure;

use sdpoint_core::seal::{BLANK, SEAL, seal};
use sdpoint_core::{Layer, LayerId, Model, Network, Op};

use crate::error::ExportError;
use crate::preprocessing::in_words;
use crate::state_dict::instances;
use class::Classes;
use module::{Body, body, member};
use structure::items;

/// The code that all exported modules share.
const PARTS: &str = include_str!("python/parts.py");

/// The source of a PyTorch module that computes all instances of the model, and
/// loads the output of [`state_dict`](crate::state_dict()).
///
/// # Errors
/// If the network has a layer whose name or position cannot be expressed in
/// Python. This cannot happen for networks of the zoo.
pub fn python(model: &Model) -> Result<String, ExportError> {
    let network = &model.network;
    let all = 0..network.layers().len();
    let items = items(network, all, 0)?;
    let mut classes = Classes::default();
    let top = body(network, &items, LayerId(0), &mut |child| {
        if child.is_block {
            classes.add(network, child)
        } else {
            member(network, LayerId(child.layers.start))
        }
    })?;
    let (mut definitions, top) = classes.finish(top);
    let tuned = model.statistics.tuned().next().is_some();
    let mut class = network_class(&top, tuned);
    if tuned {
        let linear = |layer: &Layer| matches!(layer.op, Op::Linear { .. });
        if network
            .layers()
            .iter()
            .filter(|layer| linear(layer))
            .count()
            > 1
        {
            let last = network.layers().len() - 1;
            let problem = "it is not the only linear layer, of which one alone can have biases of \
                           instances' own";
            return Err(structure::refuse(network, last, problem));
        }
        for text in [&mut definitions, &mut class] {
            *text = text.replace("nn.Linear(", "Classifier(");
        }
    }
    let names: Vec<String> = instances(model).iter().map(ToString::to_string).collect();
    let preprocessing = &model.preprocessing;
    let mut source = format!(
        "{}\n\nimport random\n\nimport torch\nimport torch.nn.functional as F\nfrom torch import nn\n\n\
         # The instances that the model has statistics of, besides \"full\".\n\
         INSTANCES = {}\n\n\
         # Inputs are [batch, colours, *SIZE], (value - MEAN) / STD of values from 0 to 1.\n\
         {}SIZE = {}\nMEAN = {}\nSTD = {}\n\n\n\
         {PARTS}\n\n{definitions}{}{LOAD}\n\n\
         # A digest of this file: if it was edited, `sdpoint export` does not replace it.\n\
         # {SEAL}: {BLANK}\n",
        docstring(network),
        list(&names)?,
        in_words(preprocessing)
            .map(|line| format!("# {line}\n"))
            .concat(),
        numbers(&preprocessing.size),
        numbers(&preprocessing.mean),
        numbers(&preprocessing.std),
        class,
    )
    .into_bytes();
    seal(&mut source);
    Ok(String::from_utf8(source).expect("a seal is text"))
}

fn docstring(network: &Network) -> String {
    // The name comes from a file: insert only characters that are plain text.
    let plain = |c: &char| c.is_ascii_alphanumeric() || "-_.".contains(*c);
    let name: String = network.name().chars().filter(plain).collect();
    format!(
        "\"\"\"{name} with stochastic downsampling points, written by sdpoint {}.\n\n\
         sdpoint export MODEL --format safetensors --instances all -o weights.safetensors\n\n\
         net = load(\"weights.safetensors\")\n\
         net.use(\"full\")  # or one of INSTANCES\n\
         logits = net(images)\n\n\
         To train: net.train(), and net.draw() before each step; then net.calibrate(batches).\n\"\"\"",
        env!("CARGO_PKG_VERSION")
    )
}

fn numbers(values: &[impl ToString]) -> String {
    let texts: Vec<String> = values.iter().map(ToString::to_string).collect();
    format!("[{}]", texts.join(", "))
}

/// A list of strings, a few per line.
fn list(names: &[String]) -> Result<String, ExportError> {
    let quoted: Vec<String> = names
        .iter()
        .map(serde_json::to_string)
        .collect::<Result<_, _>>()?;
    let lines = quoted
        .chunks(8)
        .map(|line| format!("    {},\n", line.join(", ")));
    Ok(match names {
        [] => "[]".into(),
        _ => format!("[\n{}]", lines.collect::<String>()),
    })
}

const LOAD: &str = r#"

def load(path, instances=INSTANCES):
    """The network with the weights of a file, in evaluation mode.

    A file of one instance's statistics alone goes with `instances=[]`.
    """
    from safetensors.torch import load_file

    net = Network(instances)
    net.load_state_dict(load_file(path))
    return net.eval()
"#;

fn network_class(body: &Body, tuned: bool) -> String {
    let tuned = if tuned { ", tuned=True" } else { "" };
    let members = body.members_text(&mut |number| number.to_string());
    format!(
        "class Network(Adjustable):\n    \
         def __init__(self, instances=INSTANCES):\n        super().__init__()\n\
         {members}        self.arrange(instances{tuned})\n\n{}",
        body.forward_text()
    )
}
