/** What was loaded last, by key: each thing is loaded once, also when it is asked for again before it came. */
export class Recent<T> {
  private readonly loaded = new Map<string, Promise<T>>();

  constructor(private readonly limit: number) {}

  get(key: string, load: () => Promise<T>): Promise<T> {
    // A Map keeps the order of insertion, so putting a key back makes it the latest.
    const found = this.loaded.get(key) ?? load();
    this.loaded.delete(key);
    this.loaded.set(key, found);
    if (this.loaded.size > this.limit) {
      this.loaded.delete(this.loaded.keys().next().value!);
    }
    found.catch(() => {
      if (this.loaded.get(key) === found) {
        this.loaded.delete(key);
      }
    });
    return found;
  }
}
