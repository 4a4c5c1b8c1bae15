/** What flows between data, state and views. Views know these types only, never where the data came from. */

/** Counts of one 2x2 table in the order [both wrong, only h2 right, only h1 right, both right]. */
export type Cells = readonly [number, number, number, number];

/** Regions of the Venn of errors: only h2 wrong (negative flips), both wrong, only h1 wrong (positive flips). */
export type Region = "regress" | "common" | "progress";

export type InstanceId = number | string;

/** One comparison as the curves and the sweep see it: its totals only. */
export interface Step {
  readonly step: number;
  /** Seconds since 1970; null where nobody knows. */
  readonly wallTime: number | null;
  /** Weight of the dissonance that h2 was trained with at this step. */
  readonly lambda: number | null;
  readonly cells: Cells;
}

/** The comparisons of one run on one data set, by ascending step. */
export interface Series {
  readonly run: string;
  /** Name of the data set, such as "train", "val" or "test". */
  readonly dataset: string;
  /** How h2 was trained, such as "new error" or "strict imitation". */
  readonly dissonance: string | null;
  readonly numClasses: number;
  /** Whether there are images or texts of instances to ask for. */
  readonly hasMedia: boolean;
  /** What else h2 was trained with, such as its seed. */
  readonly settings?: Settings;
  /** What the user's own metric says of h1 and of h2, where there is one. */
  readonly performance?: readonly [number | null, number | null];
  readonly steps: readonly Step[];
}

export type Settings = Readonly<Record<string, string | number>>;

/** Where invariance was measured: of one run on one data set, by ascending step. */
export interface InvarianceSeries {
  readonly run: string;
  readonly dataset: string;
  readonly steps: readonly { readonly step: number; readonly wallTime: number | null }[];
}

/** What a person may have done where the data come from, such as to start a sweep. */
export interface Actions {
  /** Buttons; no two have the same label. */
  readonly offered: readonly { readonly label: string; readonly note: string }[];
  /** What is being done just now; nothing is offered meanwhile. */
  readonly doing: string | null;
  /** The button that was pressed last, where that ended in an error. */
  readonly failed: { readonly label: string; readonly error: string } | null;
}

export interface Index {
  readonly series: readonly Series[];
  readonly invariance: readonly InvarianceSeries[];
  readonly actions: Actions;
  /** What could not be read, for a person; the rest is shown all the same. */
  readonly warnings: readonly string[];
  /** A sweep that is still running: share done in 0..1. */
  readonly progress: number | null;
}

export interface TableRef {
  readonly run: string;
  readonly dataset: string;
  readonly step: number;
}

/** One comparison in full: counts by class, and the instances that h1 or h2 got wrong, by columns. */
export interface Table {
  readonly name: string | null;
  readonly step: number | null;
  readonly lambda: number | null;
  readonly numClasses: number;
  /** Null where classes are only numbers. */
  readonly classNames: readonly string[] | null;
  /** Length numClasses * 4: the cells of each true class, in the order of `Cells`. */
  readonly counts: Int32Array;
  /** True classes whose count of right instances is not known (data of the original library). */
  readonly uncertainClasses: readonly number[];
  /** Classes that h1 did not know, so that it is wrong about each of their instances. */
  readonly newClasses: readonly number[];
  readonly size: number;
  readonly ids: readonly InstanceId[] | Float64Array;
  readonly target: Uint8Array | Uint16Array | Uint32Array;
  readonly h1: Uint8Array | Uint16Array | Uint32Array;
  readonly h2: Uint8Array | Uint16Array | Uint32Array;
  /** A text for each row, where the comparison carries them itself. */
  readonly texts: readonly string[] | null;
  /** How sure the models are of each row; null without scores. */
  readonly sure: Sureness | null;
  /** Over all instances, by how sure a model is of its answer: of h1 and of h2; null without scores. */
  readonly calibration: readonly [readonly SureBin[], readonly SureBin[]] | null;
  /** Of two binary models with scores. */
  readonly thresholds: Thresholds | null;
  /** Columns of metadata. */
  readonly slices: readonly SliceColumn[];
  /** Slices of one and two columns in which more breaks, worst first. */
  readonly foundSlices: readonly FoundSlice[];
}

/** Probabilities of each row, NaN where one is not known. */
export interface Sureness {
  /** Of the answer that h1 gives. */
  readonly h1: Float32Array;
  readonly h2: Float32Array;
  /** Of the true class. */
  readonly h1Truth: Float32Array;
  readonly h2Truth: Float32Array;
}

/** Instances of which a model is about equally sure. */
export interface SureBin {
  readonly low: number;
  readonly high: number;
  readonly wrong: number;
  readonly right: number;
  /** How sure it is on average. */
  readonly mean: number;
}

/** All instances of two binary models, by both probabilities of class 1. */
export interface Thresholds {
  /** Where bins begin, ascending from 0: at each percent and at both thresholds in use. */
  readonly edges: readonly number[];
  /** Numbers of the edges that h1 and h2 are read at. */
  readonly inUse: readonly [number, number];
  /** By bin of h1, bin of h2, and true class. */
  readonly counts: Uint32Array;
}

/** A column of metadata: which slice each row is in, and counts over all instances. */
export interface SliceColumn {
  readonly column: string;
  readonly values: readonly string[];
  readonly codes: Uint8Array | Uint16Array | Uint32Array;
  /** Of each slice, in the order of `Cells`. */
  readonly cells: readonly Cells[];
}

/** A slice that was found on one half of the instances, and its counts in the other. */
export interface FoundSlice {
  readonly conditions: readonly SliceCondition[];
  readonly flips: number;
  readonly total: number;
}

/** A column of metadata and its value; the column "class" is the true class. */
export type SliceCondition = readonly [column: string, value: string];

/** Texts and images of a data set, kept once for all its steps. */
export interface Media {
  readonly texts: ReadonlyMap<InstanceId, string>;
  /** Instances of whose text `texts` holds the beginning alone. */
  readonly longer: ReadonlySet<InstanceId>;
  readonly images: ReadonlySet<InstanceId>;
  /** Instances whose larger image a limit has left out, so that enlarging shows the thumbnail. */
  readonly reduced: ReadonlySet<InstanceId>;
  /** Instances whose images a limit has left out. */
  readonly leftOut: ReadonlySet<InstanceId>;
}

/** A number with its interval; NaN bounds where there is none. */
export interface Estimate {
  readonly value: number;
  readonly low: number;
  readonly high: number;
}

/** Transformations that stand on one axis. */
export interface TransformGroup {
  /** "rotate", "scale", ...; empty for those that have no size. */
  readonly kind: string;
  readonly axis: string;
  /** Which transformations, by ascending size. */
  readonly members: readonly number[];
  /** Their sizes; null where they stand by name. */
  readonly sizes: readonly number[] | null;
}

/** One layer; what comes in pairs is of h1 and h2, null where that network has no such layer. */
export interface InvarianceLayer {
  readonly name: string;
  /** Share of the depth, 0 for the first layer and 1 for the last. */
  readonly depth: readonly [number | null, number | null];
  readonly nv: readonly [Estimate | null, Estimate | null];
  readonly difference: Estimate | null;
  readonly features: readonly [number | null, number | null];
  readonly dead: readonly [number | null, number | null];
  /** NV of features in steps of 1/254 of `end`; 255 is dead. */
  readonly heat: readonly [Uint8Array | null, Uint8Array | null];
  /** Difference from `-reach` to `reach` in the same way. */
  readonly change: Uint8Array | null;
}

export interface InvarianceDepth {
  readonly kind: "invariance" | "same_equivariance";
  readonly statistic: string;
  readonly how: string;
  /** Coverage of the intervals; null where it was not written. */
  readonly confidence: number | null;
  readonly order: string;
  readonly end: number;
  /** Whether values beyond `end` are shown as `end`. */
  readonly beyond: boolean;
  readonly reach: number;
  readonly farther: boolean;
  readonly layers: readonly InvarianceLayer[];
}

/** An update under transformations. */
export interface Invariance {
  readonly samples: number;
  readonly transforms: readonly string[];
  readonly identity: number;
  readonly groups: readonly TransformGroup[];
  /** For each transformation, where "right" means: says of t x what it says of x. */
  readonly consistency: readonly Cells[];
  /** Against the labels; null without labels. */
  readonly overlaps: readonly Cells[] | null;
  /** Over all pairs of a sample and a transformation. */
  readonly overall: { readonly h1: Estimate; readonly h2: Estimate; readonly flips: Estimate };
  /** Null where only predictions were compared. */
  readonly depth: InvarianceDepth | null;
}

/** Where data come from: TensorBoard's server, a notebook's kernel, or the file itself. */
export interface DataSource {
  index(): Promise<Index>;
  table(ref: TableRef): Promise<Table>;
  media(run: string, dataset: string): Promise<Media | null>;
  invariance(ref: TableRef): Promise<Invariance>;
  /** Something for <img src>; in full where that is wanted and at hand. */
  image(run: string, dataset: string, id: InstanceId, full?: boolean): Promise<string | null>;
  /** A text in full. */
  text(run: string, dataset: string, id: InstanceId): Promise<string | null>;
  /** Ids, as texts, of the instances whose text goes on after its beginning and contains this one. */
  search(run: string, dataset: string, text: string): Promise<ReadonlySet<string>>;
  /** Press a button of the index; settled when it was taken notice of. Only where there is somebody to act. */
  act?(label: string): Promise<void>;
}

/** An error to be shown as it is: what went wrong and what to do about it. */
export class DataError extends Error {
  constructor(
    message: string,
    readonly advice: string | null = null,
  ) {
    super(message);
  }
}

export type ClassSort = "flips" | "loss" | "count" | "name";
export type InstanceSort = "id" | "text" | "target" | "h1" | "h2" | "region" | "sure1" | "sure2";

/** Which instances are looked at. All conditions hold at once; null or "" is no condition. */
export interface Filter {
  readonly region: Region | null;
  readonly target: number | null;
  readonly h1: number | null;
  readonly h2: number | null;
  readonly text: string;
  /** Which of two updates breaks them; another run must be set beside this one. */
  readonly flips: Flips | null;
  /** What the other update says; as `flips`. */
  readonly b: number | null;
  /** From and to which probability of its answer h1 is sure. */
  readonly sure1: readonly [number, number] | null;
  readonly sure2: readonly [number, number] | null;
  readonly slices: readonly SliceCondition[];
}

/** Negative flips of run A alone, of run B alone, or of both. */
export type Flips = "a" | "b" | "both";

/** Everything that a link restores. */
export interface ViewState extends Filter {
  readonly run: string | null;
  readonly dataset: string | null;
  /** The run that the view opens on where it is told none. */
  readonly pin: string | null;
  /** Null follows the latest. */
  readonly step: number | null;
  /** A second update, on the same data set against the same h1. */
  readonly other: string | null;
  readonly classView: "accuracy" | "incompatible";
  readonly classSort: ClassSort;
  readonly classSearch: string;
  readonly classPage: number;
  readonly sort: InstanceSort;
  readonly descending: boolean;
  readonly page: number;
  /** How the instances are listed. */
  readonly listed: "table" | "pictures";
  /** The instance that is looked at closely, as text; null for none. */
  readonly instance: string | null;
  /** The panel that a link leads to, by name. */
  readonly panel: string | null;
  /** Which points the sweep shows; null is all. */
  readonly datasets: readonly string[] | null;
  readonly dissonances: readonly string[] | null;
  readonly lambdaMin: number | null;
  readonly lambdaMax: number | null;
  /** Whether it shows updates of the h1 of the run on show alone. */
  readonly sameH1: boolean;
  /** What lies on the x axes of the sweep's two charts, and on both y axes: names of scores, or "lambda". */
  readonly sweepX: readonly string[];
  readonly sweepY: string;
  /** What the colour and the shape of its points tell apart. */
  readonly colourBy: string;
  readonly shapeBy: string;
  /** What points of the sweep have to keep, such as "nfr <= 0.5%". */
  readonly promise: string;
  /** Scores drawn over steps, by name. */
  readonly curves: readonly string[];
}
