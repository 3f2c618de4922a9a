/**
 * The result of a run in the place of its view, in the notebook that the view stands in.
 *
 * The kernel replaces its output by its display id.  JupyterLab forgets these ids of outputs that it reads from a file, so a page that was
 * loaded while the run went on would keep the view, and save it: without a kernel that is "Loading widget..." for ever.  There the page
 * itself puts the result in the place.  Front ends whose notebook is not within reach leave the view where it is.
 */

const VIEW = "application/vnd.jupyter.widget-view+json";

export interface Stored {
  readonly kind: "result";
  readonly view: string; // id of the widget's model
  readonly data: Readonly<Record<string, unknown>>; // by MIME type
}

/** The part of JupyterLab's notebook that is used here. */
export interface Notebook {
  readonly cells: Iterable<{ readonly outputs?: Outputs }>;
}

interface Outputs {
  readonly length: number;
  get(place: number): { readonly data: Readonly<Record<string, unknown>> };
  set(place: number, output: unknown): void;
}

/** Put the result into every output that shows the view; none where the kernel has replaced it. */
export function store(notebook: Notebook | undefined, { view, data }: Stored): void {
  for (const { outputs } of notebook?.cells ?? []) {
    for (let place = 0; place < (outputs?.length ?? 0); place++) {
      const shown = outputs!.get(place).data[VIEW] as { readonly model_id: string } | undefined;
      if (shown?.model_id === view) outputs!.set(place, { output_type: "display_data", data, metadata: {} });
    }
  }
}
