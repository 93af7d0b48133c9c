//! Classes for blocks: blocks with the same layers share one.

use sdpoint_core::{LayerId, Network};

use super::module::{Body, Code, Member, Piece, body, member};
use super::structure::{Child, items, refuse};
use crate::error::ExportError;

/// The classes of a network's blocks, in the order of their first use.
#[derive(Debug, Default)]
pub(super) struct Classes {
    kinds: Vec<Kind>,
}

/// Blocks that differ in numbers only.
#[derive(Debug)]
struct Kind {
    /// The code of the first, from which the others differ in numbers only.
    body: Body,
    /// The numbers of each block in the order of the code.
    blocks: Vec<Vec<usize>>,
    /// Channels into and out of each block.
    channels: Vec<[usize; 2]>,
}

impl Classes {
    /// Adds a block and returns a placeholder for its code, which is generated
    /// once all blocks are known.
    pub fn add(&mut self, network: &Network, child: &Child) -> Result<Code, ExportError> {
        let first = child.layers.start;
        let input = network.layers()[first].inputs.first().copied();
        let input = input.ok_or_else(|| refuse(network, first, "it has no input"))?;
        // The names of its members follow those of its container and itself.
        let items = items(network, child.layers.clone(), 2)?;
        let body = body(network, &items, input, &mut |inner| {
            if inner.is_block {
                return Err(refuse(
                    network,
                    inner.layers.start,
                    "its block is within a block",
                ));
            }
            member(network, LayerId(inner.layers.start))
        })?;
        let alike = |kind: &Kind| kind.body.differs_in_numbers_alone(&body);
        let kind = match self.kinds.iter().position(alike) {
            Some(kind) => kind,
            None => {
                self.kinds.push(Kind {
                    body: body.clone(),
                    blocks: Vec::new(),
                    channels: Vec::new(),
                });
                self.kinds.len() - 1
            }
        };
        let of = &mut self.kinds[kind];
        of.blocks
            .push(body.numbers().map(|(_, value)| value).collect());
        let output = LayerId(child.layers.end - 1);
        let channels = [network.channels(input), network.channels(output)];
        of.channels.push(channels);
        let block = of.blocks.len() - 1;
        Ok(Code(vec![Piece::Block { kind, block }]))
    }

    /// The definitions of all classes, and the network's body with calls of
    /// them.
    pub fn finish(self, mut top: Body) -> (String, Body) {
        let parameters: Vec<Parameters> = self.kinds.iter().map(Parameters::of).collect();
        let name = |kind: usize| match self.kinds.len() {
            1 => "Block".to_owned(),
            _ => format!("Block{}", kind + 1),
        };
        for (_, member) in &mut top.members {
            if let Member::Sequence(codes) = member {
                *codes = calls(codes, &parameters, &self.kinds, &name);
            }
        }
        let definitions = self.kinds.iter().zip(&parameters).enumerate();
        let definitions = definitions.map(|(kind, (of, parameters))| {
            let mut texts = parameters.texts(&of.blocks[0]).into_iter();
            let members = of
                .body
                .members_text(&mut |_| texts.next().unwrap_or_default());
            let arguments: String = parameters
                .names
                .iter()
                .map(|name| format!(", {name}"))
                .collect();
            format!(
                "class {}(nn.Module):\n    def __init__(self{arguments}):\n        \
                 super().__init__()\n{members}\n{}\n\n",
                name(kind),
                of.body.forward_text()
            )
        });
        (definitions.collect(), top)
    }
}

/// Calls of classes for a sequence of blocks. Consecutive ones that differ in
/// their point only become one line.
fn calls(
    codes: &[Code],
    parameters: &[Parameters],
    kinds: &[Kind],
    name: &dyn Fn(usize) -> String,
) -> Vec<Code> {
    let mut calls = Vec::new();
    let mut rest = codes;
    while let [first, ..] = rest {
        let [Piece::Block { kind, block }] = first.0[..] else {
            calls.push(first.clone());
            rest = &rest[1..];
            continue;
        };
        let of = &parameters[kind];
        let point = of.names.iter().position(|name| name == POINT);
        let arguments = |block: usize| of.arguments(&kinds[kind].blocks[block]);
        let goes_on = |steps: usize, code: &Code| {
            let mut expected = arguments(block);
            let Some(point) = point else { return false };
            expected[point] += steps;
            matches!(code.0[..], [Piece::Block { kind: k, block: b }]
                if k == kind && arguments(b) == expected)
        };
        let run = rest
            .iter()
            .enumerate()
            .take_while(|(steps, code)| goes_on(*steps, code))
            .count();
        let mut texts: Vec<String> = arguments(block).iter().map(usize::to_string).collect();
        let text = match point {
            Some(point) if run > 1 => {
                let from = arguments(block)[point];
                texts[point] = POINT.to_owned();
                let call = format!("{}({})", name(kind), texts.join(", "));
                format!("*({call} for {POINT} in range({from}, {}))", from + run)
            }
            _ => format!("{}({})", name(kind), texts.join(", ")),
        };
        calls.push(Code::text(text));
        rest = &rest[run.max(1)..];
    }
    calls
}

/// The parameter name for a downsampling point's number.
const POINT: &str = "point";

/// The arguments of a class.
#[derive(Debug)]
struct Parameters {
    names: Vec<String>,
    /// For each parameter, the first number that it replaces.
    firsts: Vec<usize>,
    /// For each number, the parameter that replaces it; `None` if it is the same
    /// in all blocks.
    places: Vec<Option<usize>>,
}

impl Parameters {
    /// Numbers that differ between blocks become parameters; numbers that are
    /// equal in each block share one.
    fn of(kind: &Kind) -> Self {
        let mut parameters = Self {
            names: Vec::new(),
            firsts: Vec::new(),
            places: Vec::new(),
        };
        let column = |place: usize| kind.blocks.iter().map(move |block| block[place]);
        for (place, (role, value)) in kind.body.numbers().enumerate() {
            if column(place).all(|other| other == value) {
                parameters.places.push(None);
                continue;
            }
            let same = |&first: &usize| column(first).eq(column(place));
            let known = parameters.firsts.iter().position(same);
            let parameter = known.unwrap_or_else(|| {
                let channels = |end: usize| kind.channels.iter().map(move |ends| ends[end]);
                let wanted = match role {
                    "channels" | "width" if column(place).eq(channels(0)) => "channels",
                    "channels" | "width" if column(place).eq(channels(1)) => "out",
                    _ => role,
                };
                parameters.firsts.push(place);
                let name = free_name(wanted, &parameters.names);
                parameters.names.push(name);
                parameters.names.len() - 1
            });
            parameters.places.push(Some(parameter));
        }
        parameters
    }

    /// The arguments for a block of these numbers.
    fn arguments(&self, numbers: &[usize]) -> Vec<usize> {
        self.firsts.iter().map(|&first| numbers[first]).collect()
    }

    /// The code for each number.
    fn texts(&self, numbers: &[usize]) -> Vec<String> {
        let text = |(place, number): (&Option<usize>, &usize)| match place {
            Some(parameter) => self.names[*parameter].clone(),
            None => number.to_string(),
        };
        self.places.iter().zip(numbers).map(text).collect()
    }
}

fn free_name(wanted: &str, taken: &[String]) -> String {
    let numbered = (2..).map(|number| format!("{wanted}{number}"));
    std::iter::once(wanted.to_owned())
        .chain(numbered)
        .find(|name| !taken.contains(name))
        .unwrap_or_default()
}
