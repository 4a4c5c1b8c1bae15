import { useContext, useEffect, useId, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { lambdaText, percent } from "../../layout/format";
import { MountId } from "../parts/mountId";

export interface RunOption {
  readonly run: string;
  readonly dissonance: string | null;
  readonly lambda: number | null;
  /** Negative flip rate at the latest step; null where the run has none on this data set. */
  readonly nfr: number | null;
}

export interface RunPickerProps {
  readonly label: string;
  readonly title: string;
  readonly options: readonly RunOption[];
  readonly value: string | null;
  readonly placeholder: string;
  readonly onPick: (run: string) => void;
  /** The run that the view opens on; where one can be pinned. */
  readonly pin?: string | null;
  readonly onPin?: (run: string | null) => void;
  /** Where no run at all is a choice too. */
  readonly onClear?: () => void;
}

const text = ({ run, dissonance, lambda }: RunOption) =>
  `${run} ${dissonance ?? ""} ${lambdaText(lambda)}`.toLowerCase();

/** Runs that contain every word of the search, in any order. */
export function matching(options: readonly RunOption[], search: string): RunOption[] {
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  return options.filter((option) => words.every((word) => text(option).includes(word)));
}

function PinIcon() {
  return (
    <svg class="bc-pin-icon" viewBox="0 0 16 16" aria-hidden="true">
      <path d="M5 1.5h6l-1 5 2.5 3h-9L6 6.5zM8 9.5v5" />
    </svg>
  );
}

/** Least distance of the list from the right edge of the view. */
const MARGIN = 8;

/** A text field with a list under it, after the combobox pattern of the ARIA practices. */
export function RunPicker({ label, title, options, value, placeholder, pin = null, onPin, onPick, onClear }: RunPickerProps) {
  const id = `${useContext(MountId)}${useId()}`;
  const field = useRef<HTMLInputElement>(null);
  const popup = useRef<HTMLDivElement>(null);
  const list = useRef<HTMLUListElement>(null);
  /** Null while the list is closed. */
  const [search, setSearch] = useState<string | null>(null);
  const [active, setActive] = useState(0);
  const found = useMemo(() => (search === null ? [] : matching(options, search)), [options, search]);
  const isOpen = search !== null;

  const open = () => {
    setSearch("");
    setActive(
      Math.max(
        0,
        options.findIndex(({ run }) => run === value),
      ),
    );
  };
  const close = () => setSearch(null);
  const pick = (option: RunOption | undefined) => {
    if (option === undefined) return;
    close();
    onPick(option.run);
  };
  // A closed list leaves the focus in the field, with the name of the run in it: the next letter replaces that name.
  useLayoutEffect(() => {
    if (!isOpen && field.current?.matches(":focus")) field.current.select();
  }, [isOpen, value]);
  useLayoutEffect(() => {
    const box = popup.current;
    const view = box?.closest(".bc-app");
    if (!box || !view) return;
    const beyond = box.getBoundingClientRect().right - (view.getBoundingClientRect().right - MARGIN);
    box.style.left = `${Math.min(0, -beyond)}px`;
  }, [isOpen]);
  useEffect(() => {
    if (isOpen) list.current?.querySelector('[aria-selected="true"]')?.scrollIntoView({ block: "nearest" });
  }, [isOpen, active, found]);

  const onKeyDown = (event: KeyboardEvent) => {
    const move = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10 }[event.key];
    if (move !== undefined) {
      event.preventDefault();
      if (!isOpen) open();
      else setActive(Math.min(found.length - 1, Math.max(0, active + move)));
    } else if (event.key === "Enter" && isOpen) {
      event.preventDefault();
      pick(found[active]);
    } else if (event.key === "Escape" && isOpen) {
      event.preventDefault();
      close();
    }
  };

  return (
    <div class="bc-tool bc-picker">
      <label for={`${id}-field`}>{label}</label>
      <div class="bc-picker-box">
        <input
          ref={field}
          id={`${id}-field`}
          type="text"
          role="combobox"
          autocomplete="off"
          spellcheck={false}
          title={value === null ? title : `${value} – ${title}`}
          aria-expanded={isOpen}
          aria-controls={`${id}-list`}
          aria-autocomplete="list"
          aria-activedescendant={isOpen && found.length > 0 ? `${id}-${active}` : undefined}
          placeholder={isOpen ? "Type to search" : placeholder}
          value={search ?? value ?? ""}
          onFocus={open}
          onClick={() => isOpen || open()}
          onBlur={close}
          onKeyDown={onKeyDown}
          onInput={(event) => {
            const { value: text } = event.currentTarget;
            // With the caret inside the name of a closed list's run, what is typed alone is looked for.
            setSearch(isOpen ? text : ((event as InputEvent).data ?? text));
            setActive(0);
          }}
        />
        {onPin && value !== null && (
          <button
            type="button"
            class="bc-clear bc-pin"
            aria-pressed={value === pin}
            title={value === pin ? "Pinned: the view opens on this run" : "Pin: let the view open on this run"}
            aria-label="Open on this run"
            onClick={() => onPin(value === pin ? null : value)}
          >
            <PinIcon />
          </button>
        )}
        {onClear && value !== null && (
          <button type="button" class="bc-clear" title="Stop comparing" aria-label={`${label}: none`} onClick={onClear}>
            ×
          </button>
        )}
        {isOpen && (
          // A press must not take the focus from the field, or the list would close before the click arrives.
          <div ref={popup} class="bc-picker-list" onMouseDown={(event) => event.preventDefault()}>
            <div class="bc-picker-row bc-picker-head" aria-hidden="true">
              <span>Run</span>
              <span>Dissonance</span>
              <span>λ</span>
              <span>NFR</span>
            </div>
            <ul ref={list} id={`${id}-list`} role="listbox" aria-label={label}>
              {found.map((option, i) => (
                <li
                  key={option.run}
                  id={`${id}-${i}`}
                  role="option"
                  aria-selected={i === active}
                  class={`bc-picker-row${option.run === value ? " bc-picker-chosen" : ""}`}
                  onClick={() => pick(option)}
                >
                  <span class="bc-picker-name" title={option.run}>
                    {option.run === pin && <PinIcon />}
                    {option.run}
                    {option.run === value && <span class="bc-hidden">, chosen</span>}
                    {option.run === pin && <span class="bc-hidden">, pinned</span>}
                  </span>
                  <span class="bc-ellipsis">{option.dissonance ?? "–"}</span>
                  <span>{lambdaText(option.lambda)}</span>
                  <span>{option.nfr === null ? "–" : percent(option.nfr)}</span>
                </li>
              ))}
            </ul>
            {found.length === 0 && (
              <p class="bc-empty">{options.length === 0 ? "No other run fits." : `No run matches “${search}”.`}</p>
            )}
          </div>
        )}
      </div>
    </div>
  );
}
