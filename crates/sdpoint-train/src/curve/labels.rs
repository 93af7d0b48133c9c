//! Placement of labels so that they do not overlap.

/// A box in pixels: left, top, right, bottom.
pub(super) type Box = [f64; 4];

/// The gap between a label and its mark.
const GAP: f64 = 7.0;

/// The gap between labels in a row.
const SPACE: f64 = 4.0;

/// Places labels next to their marks.
#[derive(Debug)]
pub(super) struct Placer {
    bounds: Box,
    /// Boxes that no label may overlap, those of placed labels included.
    taken: Vec<Box>,
    /// Points of lines, which labels avoid if possible.
    lines: Vec<[f64; 2]>,
}

impl Placer {
    /// A placer for labels inside `bounds`.
    pub(super) fn new(bounds: Box) -> Self {
        Self {
            bounds,
            taken: Vec::new(),
            lines: Vec::new(),
        }
    }

    /// Keeps labels off a box.
    pub(super) fn avoid(&mut self, taken: Box) {
        self.taken.push(taken);
    }

    /// Keeps labels off a line if possible.
    pub(super) fn avoid_line(&mut self, from: [f64; 2], to: [f64; 2]) {
        let parts = ((to[0] - from[0]).hypot(to[1] - from[1]) / 4.0)
            .ceil()
            .max(1.0);
        for part in 0..=parts as usize {
            let t = part as f64 / parts;
            self.lines.push([
                from[0] + t * (to[0] - from[0]),
                from[1] + t * (to[1] - from[1]),
            ]);
        }
    }

    /// The upper left corner for a label of `[width, height]` of the mark at
    /// `at`, or `None` if it would overlap something everywhere.
    pub(super) fn place(&mut self, at: [f64; 2], size: [f64; 2]) -> Option<[f64; 2]> {
        let [x, y] = at;
        let [w, h] = size;
        let above = y - GAP - h;
        let below = y + GAP;
        let corners = [
            [x - w / 2.0, above],
            [x - GAP / 2.0 - w, above],
            [x + GAP / 2.0, above],
            [x - w / 2.0, below],
            [x + GAP / 2.0, below],
            [x + GAP, y - h / 2.0],
            [x - GAP / 2.0 - w, below],
            [x - GAP - w, y - h / 2.0],
        ];
        let of = |[left, top]: [f64; 2]| [left, top, left + w, top + h];
        let free = corners.into_iter().filter(|&corner| {
            let label = of(corner);
            inside(label, self.bounds) && !self.taken.iter().any(|&other| overlap(label, other))
        });
        let covered = |&corner: &[f64; 2]| {
            let label = of(corner);
            self.lines
                .iter()
                .filter(|&&[x, y]| overlap(label, [x, y, x, y]))
                .count()
        };
        let corner = free.min_by_key(covered)?;
        let [left, top, right, bottom] = of(corner);
        self.taken.push([left - SPACE, top, right + SPACE, bottom]);
        Some(corner)
    }
}

fn inside(inner: Box, outer: Box) -> bool {
    inner[0] >= outer[0] && inner[1] >= outer[1] && inner[2] <= outer[2] && inner[3] <= outer[3]
}

fn overlap(a: Box, b: Box) -> bool {
    a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3]
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: [f64; 2] = [40.0, 12.0];

    #[test]
    fn labels_cover_neither_each_other_nor_marks() {
        let mut placer = Placer::new([0.0, 0.0, 300.0, 200.0]);
        let marks: Vec<[f64; 2]> = (0..6)
            .map(|i| [40.0 + 30.0 * f64::from(i), 100.0])
            .collect();
        for &[x, y] in &marks {
            placer.avoid([x - 5.0, y - 5.0, x + 5.0, y + 5.0]);
        }
        let placed: Vec<[f64; 2]> = marks
            .iter()
            .filter_map(|&at| placer.place(at, SIZE))
            .collect();
        assert!(placed.len() >= 4, "{placed:?}");
        let boxes: Vec<Box> = placed
            .iter()
            .map(|&[x, y]| [x, y, x + 40.0, y + 12.0])
            .collect();
        for (index, &label) in boxes.iter().enumerate() {
            assert!(!boxes[..index].iter().any(|&other| overlap(label, other)));
            assert!(!marks.iter().any(|&[x, y]| overlap(label, [x, y, x, y])));
        }
    }

    #[test]
    fn labels_stay_in_the_picture() {
        let mut placer = Placer::new([0.0, 0.0, 100.0, 100.0]);
        let [x, y] = placer.place([98.0, 3.0], SIZE).unwrap();
        assert!(x + 40.0 <= 100.0 && y >= 0.0);
        assert_eq!(placer.place([50.0, 50.0], [200.0, 12.0]), None);
    }

    #[test]
    fn a_label_keeps_off_a_line_if_it_can() {
        let mut placer = Placer::new([0.0, 0.0, 200.0, 200.0]);
        placer.avoid_line([20.0, 80.0], [180.0, 80.0]);
        let [_, y] = placer.place([100.0, 94.0], SIZE).unwrap();
        assert!(y > 80.0, "{y}");
    }
}
