import { defineConfig } from 'vite';

// The built page is committed, so its files keep their names and change only
// when the page does. `npm run dev` serves it with the running program behind.
const program = 'http://127.0.0.1:8000';

export default defineConfig({
  base: './',
  build: {
    target: 'es2022',
    modulePreload: false,
    rollupOptions: {
      output: { entryFileNames: 'assets/app.js', assetFileNames: 'assets/app[extname]' },
    },
  },
  server: { proxy: { '/connection': { target: program, ws: true }, '/emulation': program } },
});
