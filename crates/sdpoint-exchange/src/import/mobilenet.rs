//! timm's names of MobileNetV2, as torchvision's.
//!
//! Both libraries have the same network under different names: timm numbers
//! blocks within their stage (`blocks.2.1.conv_pw`), torchvision through the
//! whole network (`features.5.conv.0.0`). The description has torchvision's.

use std::collections::HashSet;

/// How the blocks of a dictionary with timm's names are numbered by torchvision.
pub(super) struct MobileNet<'n> {
    names: HashSet<&'n str>,
    prefix: &'n str,
    /// The number of blocks before each stage, and at the end that of all.
    starts: Vec<usize>,
}

impl<'n> MobileNet<'n> {
    /// Recognises timm's names, behind any prefix.
    pub fn of(names: impl Iterator<Item = &'n str>) -> Option<Self> {
        let names: HashSet<&str> = names.collect();
        let mut prefixes: Vec<&str> = names
            .iter()
            .filter_map(|name| name.strip_suffix("conv_stem.weight"))
            .filter(|prefix| prefix.is_empty() || prefix.ends_with('.'))
            .collect();
        // The shortest: a copy may lie behind a longer one.
        prefixes.sort_by_key(|prefix| (prefix.len(), *prefix));
        let prefix = prefixes
            .into_iter()
            .find(|prefix| names.contains(&format!("{prefix}blocks.1.0.conv_pwl.weight")[..]))?;
        let has_block = |stage: usize, block: usize| {
            names.contains(&format!("{prefix}blocks.{stage}.{block}.conv_dw.weight")[..])
        };
        let mut starts = vec![0];
        for stage in 0.. {
            let blocks = (0..).take_while(|&block| has_block(stage, block)).count();
            if blocks == 0 {
                break;
            }
            starts.push(starts[stage] + blocks);
        }
        Some(Self {
            names,
            prefix,
            starts,
        })
    }

    /// torchvision's name of a tensor, if timm's name is one of MobileNetV2.
    pub fn torchvision(&self, name: &str) -> Option<String> {
        let own = name.strip_prefix(self.prefix)?;
        let (module, kind) = own.rsplit_once('.')?;
        let blocks = *self.starts.last()?;
        let module = match module {
            "conv_stem" => "features.0.0".to_owned(),
            "bn1" => "features.0.1".to_owned(),
            "conv_head" => format!("features.{}.0", blocks + 1),
            "bn2" => format!("features.{}.1", blocks + 1),
            "classifier" => "classifier.1".to_owned(),
            module => self.in_block(module.strip_prefix("blocks.")?)?,
        };
        Some(format!("{}{module}.{kind}", self.prefix))
    }

    /// The name of `STAGE.BLOCK.LAYER`.
    fn in_block(&self, module: &str) -> Option<String> {
        let mut parts = module.split('.');
        let (stage, block, layer) = (parts.next()?, parts.next()?, parts.next()?);
        let stage: usize = stage.parse().ok()?;
        let place = self.starts.get(stage)? + block.parse::<usize>().ok()? + 1;
        let block = format!("{}blocks.{stage}.{block}", self.prefix);
        // A block without expansion has a depthwise convolution and a projection.
        let expands = self.names.contains(&format!("{block}.conv_pwl.weight")[..]);
        let layer = match (expands, layer) {
            (true, "conv_pw") | (false, "conv_dw") => "0.0",
            (_, "bn1") => "0.1",
            (true, "conv_dw") => "1.0",
            (true, "bn2") => "1.1",
            (true, "conv_pwl") => "2",
            (true, "bn3") => "3",
            (false, "conv_pw") => "1",
            (false, "bn2") => "2",
            _ => return None,
        };
        Some(format!("features.{place}.conv.{layer}"))
    }
}

#[cfg(test)]
mod tests {
    use super::MobileNet;

    #[test]
    fn blocks_are_counted_through_the_stages() {
        let names = [
            "net.conv_stem.weight",
            "net.blocks.0.0.conv_dw.weight",
            "net.blocks.0.0.conv_pw.weight",
            "net.blocks.1.0.conv_dw.weight",
            "net.blocks.1.0.conv_pwl.weight",
            "net.blocks.1.1.conv_dw.weight",
            "net.blocks.1.1.conv_pwl.weight",
            "net.blocks.2.0.conv_dw.weight",
        ];
        let timm = MobileNet::of(names.into_iter()).unwrap();
        for (name, expected) in [
            ("net.conv_stem.weight", "net.features.0.0.weight"),
            (
                "net.blocks.0.0.conv_pw.weight",
                "net.features.1.conv.1.weight",
            ),
            ("net.blocks.0.0.bn2.bias", "net.features.1.conv.2.bias"),
            (
                "net.blocks.1.1.conv_dw.weight",
                "net.features.3.conv.1.0.weight",
            ),
            ("net.blocks.1.1.bn3.weight", "net.features.3.conv.3.weight"),
            ("net.conv_head.weight", "net.features.5.0.weight"),
            ("net.bn2.running_mean", "net.features.5.1.running_mean"),
            ("net.classifier.bias", "net.classifier.1.bias"),
        ] {
            assert_eq!(timm.torchvision(name).as_deref(), Some(expected));
        }
        for other in [
            "conv_stem.weight",
            "net.blocks.9.0.bn1.weight",
            "net.blocks.1.0.se.weight",
        ] {
            assert_eq!(timm.torchvision(other), None, "{other}");
        }
    }

    #[test]
    fn other_networks_are_not_taken_for_it() {
        assert!(MobileNet::of(["conv1.weight", "layer1.0.conv1.weight"].into_iter()).is_none());
        assert!(
            MobileNet::of(["conv_stem.weight", "blocks.0.0.conv_pw.weight"].into_iter()).is_none()
        );
    }
}
