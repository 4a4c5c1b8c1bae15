import { useContext, useId, useMemo, useState } from "preact/hooks";
import { MountId } from "../parts/mountId";
import { useTyped } from "../parts/typed";

export interface ClassPickerProps {
  readonly label: string;
  readonly labels: readonly string[];
  readonly value: number | null;
  readonly onPick: (index: number | null) => void;
}

/** A menu of more classes than this is slower than typing. */
const MENU_LIMIT = 50;

/** Names of the classes, with the number of the class where several have one name. */
export function namesOf(labels: readonly string[]): readonly string[] {
  const seen = new Set<string>();
  const repeated = new Set(labels.filter((name) => seen.size === seen.add(name).size));
  return repeated.size === 0 ? labels : labels.map((name, i) => (repeated.has(name) ? `${name} (${i})` : name));
}

export function ClassPicker({ label, labels, value, onPick }: ClassPickerProps) {
  const names = useMemo(() => namesOf(labels), [labels]);
  if (labels.length > MENU_LIMIT) return <ClassField label={label} labels={names} value={value} onPick={onPick} />;
  return (
    <label class="bc-tool">
      <span class="bc-tool-label">{label}</span>
      <select
        value={value ?? ""}
        onChange={({ currentTarget: { value: chosen } }) => onPick(chosen === "" ? null : Number(chosen))}
      >
        <option value="">any</option>
        {names.map((name, index) => (
          <option key={index} value={index}>
            {name}
          </option>
        ))}
      </select>
    </label>
  );
}

function ClassField({ label, labels, value, onPick }: ClassPickerProps) {
  const id = `${useContext(MountId)}${useId()}`;
  const chosen = value === null ? "" : (labels[value] ?? "");
  // On the way to "12", class 1 is picked.
  const { typed, setTyped, sent } = useTyped(chosen);
  const [listed, setListed] = useState(false);
  const take = (text: string) => {
    setTyped(text);
    const index = labels.indexOf(text);
    if (text !== "" && index < 0) return;
    sent.current = text;
    onPick(text === "" ? null : index);
  };
  const unknown = typed !== "" && !labels.includes(typed);
  return (
    <label class="bc-tool">
      <span class="bc-tool-label">{label}</span>
      <input
        type="search"
        list={`${id}-classes`}
        value={typed}
        placeholder="any"
        autocomplete="off"
        aria-invalid={unknown}
        title={unknown ? `No class is called “${typed}”` : "Type the name of a class"}
        onFocus={() => setListed(true)}
        onInput={(event) => take(event.currentTarget.value)}
        onBlur={() => unknown && setTyped(chosen)}
      />
      <datalist id={`${id}-classes`}>
        {listed && labels.map((name, index) => <option key={index} value={name} />)}
      </datalist>
    </label>
  );
}
