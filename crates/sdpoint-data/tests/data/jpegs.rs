//! A writer of JPEG files that ordinary encoders do not write: any sampling,
//! any scans, restarts, progressive, without tables. Each component is of one
//! value everywhere; where a decoder takes a block for another's, that shows.

/// What is to be written.
#[derive(Clone)]
pub struct Jpeg {
    pub width: u16,
    pub height: u16,
    /// The samplings of the components, across and down.
    pub sampling: Vec<[u8; 2]>,
    /// The value that each component has everywhere.
    pub values: Vec<u8>,
    pub ids: Vec<u8>,
    /// The components of each scan; for progressive files those of DC.
    pub scans: Vec<Vec<usize>>,
    pub restart: u16,
    pub progressive: bool,
    pub tables: bool,
    /// Segments after the start.
    pub header: Vec<u8>,
}

impl Jpeg {
    pub fn new(sampling: &[[u8; 2]], values: &[u8]) -> Jpeg {
        Jpeg {
            width: 67,
            height: 45,
            sampling: sampling.to_vec(),
            values: values.to_vec(),
            ids: (1..=sampling.len() as u8).collect(),
            scans: vec![(0..sampling.len()).collect()],
            restart: 0,
            progressive: false,
            tables: true,
            header: Vec::new(),
        }
    }

    pub fn write(&self) -> Vec<u8> {
        let mut file = vec![0xff, 0xd8];
        file.extend(&self.header);
        // Steps of 8, so that a block's mean is its DC coefficient.
        let mut quantiser = vec![0];
        quantiser.extend([8; 64]);
        file.extend(segment(0xdb, &quantiser));
        let mut frame = vec![8];
        frame.extend(self.height.to_be_bytes());
        frame.extend(self.width.to_be_bytes());
        frame.push(self.sampling.len() as u8);
        for (id, [across, down]) in self.ids.iter().zip(&self.sampling) {
            frame.extend([*id, across << 4 | down, 0]);
        }
        file.extend(segment(if self.progressive { 0xc2 } else { 0xc0 }, &frame));
        if self.tables {
            file.extend(segment(0xc4, &DC_TABLE));
            file.extend(segment(0xc4, &AC_TABLE));
        }
        if self.restart > 0 {
            file.extend(segment(0xdd, &self.restart.to_be_bytes()));
        }
        for scan in &self.scans {
            let band = if self.progressive {
                [0, 0, 0]
            } else {
                [0, 63, 0]
            };
            file.extend(self.scan(scan, band));
        }
        if self.progressive {
            for component in 0..self.sampling.len() {
                file.extend(self.scan(&[component], [1, 63, 0]));
            }
        }
        file.extend([0xff, 0xd9]);
        file
    }

    fn scan(&self, components: &[usize], band: [u8; 3]) -> Vec<u8> {
        let mut header = vec![components.len() as u8];
        for &component in components {
            header.extend([self.ids[component], 0]);
        }
        header.extend(band);
        let mut bytes = segment(0xda, &header);
        let finest = |axis: usize| self.sampling.iter().map(|s| s[axis]).max().unwrap();
        let sides = [self.width, self.height].map(usize::from);
        let units = |axis: usize| match *components {
            [only] => {
                let sampling = usize::from(self.sampling[only][axis]);
                (sides[axis] * sampling).div_ceil(8 * usize::from(finest(axis)))
            }
            _ => sides[axis].div_ceil(8 * usize::from(finest(axis))),
        };
        let mut bits = Bits::default();
        for unit in 0..units(0) * units(1) {
            let restart = usize::from(self.restart);
            let fresh = unit == 0 || (restart > 0 && unit % restart == 0);
            if fresh && unit > 0 {
                bits.pad();
                bits.bytes
                    .extend([0xff, 0xd0 + ((unit / restart - 1) % 8) as u8]);
            }
            for &component in components {
                let [across, down] = self.sampling[component].map(usize::from);
                let blocks = if components.len() == 1 {
                    1
                } else {
                    across * down
                };
                for block in 0..blocks {
                    let mean = i32::from(self.values[component]) - 128;
                    if band[0] == 0 {
                        bits.dc(if fresh && block == 0 { mean } else { 0 });
                    }
                    if band[1] > 0 {
                        bits.put(0b1010, 4); // end of block
                    }
                }
            }
        }
        bits.pad();
        bytes.extend(bits.bytes);
        bytes
    }
}

/// A marker segment.
pub fn segment(code: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xff, code];
    bytes.extend((body.len() as u16 + 2).to_be_bytes());
    bytes.extend(body);
    bytes
}

/// Adobe's segment, which names the transform of colours.
pub fn adobe(transform: u8) -> Vec<u8> {
    let mut body = b"Adobe\0\x64\0\0\0\0".to_vec();
    body.push(transform);
    segment(0xee, &body)
}

/// The standard table for luma.
const DC_TABLE: [u8; 29] = [
    0, 0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11,
];

/// The beginning of the standard table for luma: end of block is its fourth code.
const AC_TABLE: [u8; 23] = [
    0x10, 0, 2, 1, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 0, 4, 0x11,
];

/// Lengths and codes of `DC_TABLE`.
const DC_CODES: [(u8, u32); 9] = [
    (2, 0b00),
    (3, 0b010),
    (3, 0b011),
    (3, 0b100),
    (3, 0b101),
    (3, 0b110),
    (4, 0b1110),
    (5, 0b11110),
    (6, 0b111110),
];

#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    value: u32,
    count: u8,
}

impl Bits {
    fn put(&mut self, value: u32, count: u8) {
        for at in (0..count).rev() {
            self.value = self.value << 1 | (value >> at & 1);
            self.count += 1;
            if self.count == 8 {
                let byte = self.value as u8;
                self.bytes.push(byte);
                if byte == 0xff {
                    self.bytes.push(0);
                }
                self.count = 0;
            }
        }
    }

    fn dc(&mut self, difference: i32) {
        let size = (32 - difference.unsigned_abs().leading_zeros()) as usize;
        let (len, code) = DC_CODES[size];
        self.put(code, len);
        let below = i32::from(difference < 0);
        self.put((difference - below) as u32, size as u8);
    }

    fn pad(&mut self) {
        while self.count > 0 {
            self.put(1, 1);
        }
    }
}
